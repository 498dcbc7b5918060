"""What a machine does now: matrix products and JPEG decoding, quoted beside every figure in CPU seconds."""

from __future__ import annotations

import io
import time

import numpy as np
import torch
from PIL import Image


def gemm_rate() -> float:
    """GFLOP a CPU second of float32 matrix products on one thread."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    start = time.process_time()
    for _ in range(20):
        a = a @ b / 32
    return 20 * 2 * 1024**3 / (time.process_time() - start) / 1e9


def decode_rate() -> float:
    """512-px JPEGs a CPU second on one thread."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).save(buffer, "JPEG", quality=90)
    start = time.process_time()
    for _ in range(100):
        Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    return 100 / (time.process_time() - start)
