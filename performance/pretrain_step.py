"""Training steps of ViT-S/14, 2 x 224 + 8 x 98 px, at equal settings: ours, lightly-train, official DINOv2, and the floor.

    uv venv OTHER --python 3.11
    uv pip install --python OTHER/bin/python lightly-train torch==(ours) omegaconf fvcore iopath
    python performance/pretrain_step.py --lightly-python OTHER/bin/python --dinov2 CHECKOUT --dinov2-python OTHER/bin/python

Equal are: prototypes K (``--prototypes``) of two separate heads of 3 layers, hidden 2,048, bottleneck 256; drop path 0; half of
the global views masked, 10 to 50 % of each, the very same masks; Sinkhorn-Knopp; class-token, patch and KoLeo losses; AdamW
with layer decay, clipping at 3 and a moving average; prototypes that are never frozen; float32, one thread. Views and masks are
made before; nothing is decoded, loaded or logged to a file. lightly-train runs in Lightning's trainer, DINOv2 as its
``do_train`` does but for FSDP, with torch's fused attention in place of xformers. The floor is the same tokens through backbone
and heads: the teacher's forward, the student's forward and backward.

Each contender lives in a process of its own Python and takes turns, a step a round; ratios are medians over rounds, of CPU
seconds; above 1, the first one named is faster (bars: peers at least 1.05, the floor at least 0.85). Memory is told thrice: the
largest resident memory while stepping; that without what was resident once everything had been imported (``own``: networks,
moments, gradients, activations; bar: no more than the leanest peer's); and its rise above the state before the first step.
Kernel-like calls are ATen calls of one step, but for views, those that only make room (``empty``), those that only look at what
is there, and numbers on the host; a call on a list of tensors is one (bar: 1,050).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rates import decode_rate, gemm_rate

HERE = Path(__file__).resolve().parent / "contenders"
NAMES = ("ours", "lightly-train", "dinov2", "floor")


class Contender:
    """A process that holds one training and does a step of it when asked."""

    def __init__(self, name: str, command: Sequence[str], path: Sequence[Path], work: dict[str, int]) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.counted: dict[str, Any] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        reading, writing = os.pipe()
        paths = os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [*command, "--work", json.dumps(work), "--replies", str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[writing],
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        os.close(writing)
        self._words: Any = self._process.stdin
        self._replies = os.fdopen(reading)
        self.versions = self._answer()

    def ask(self, word: str) -> Any:  # noqa: ANN401
        """Send a word, and return the answer to it."""
        self._words.write(word + "\n")
        self._words.flush()
        return self._answer()

    def step(self) -> None:
        """Do a timed step."""
        self.seconds.append(self.ask("step")["seconds"])

    def close(self) -> None:
        """End the process."""
        self._words.close()
        self._process.wait(timeout=60)

    def _answer(self) -> Any:  # noqa: ANN401
        line = self._replies.readline()
        if not line:
            self._errors.seek(0)
            sys.exit(f"{self.name} ended:\n{self._errors.read()[-4000:]}")
        return json.loads(line)


def start(name: str, given: argparse.Namespace, work: dict[str, int]) -> Contender:
    """Start one contender in the Python it needs."""
    if name == "lightly-train":
        return Contender(name, [given.lightly_python, str(HERE / "lightly_peer.py")], [], work)
    if name == "dinov2":
        path = [HERE / "without_xformers", given.dinov2]
        return Contender(name, [given.dinov2_python, str(HERE / "dinov2_peer.py")], path, work)
    return Contender(name, [sys.executable, str(HERE / f"{name}.py")], [], work)


def wanted(given: argparse.Namespace) -> list[str]:
    """Return the contenders that can run."""
    missing = {"lightly-train": given.lightly_python is None, "dinov2": given.dinov2 is None}
    return [name for name in given.only or NAMES if not missing.get(name)]


def compare(given: argparse.Namespace, prototypes: int) -> None:
    """Let all contenders step in turns, and print what they took."""
    work = {"batch": given.batch, "prototypes": prototypes}
    contenders = [start(name, given, work) for name in wanted(given)]
    for contender in contenders:
        contender.ask("step")  # makes the moments of the optimizer
    for contender in contenders:
        contender.counted = contender.ask("calls")
    for number in range(given.rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            contender.step()
    print(f"\nbatch {given.batch}, {prototypes:,} prototypes, {given.rounds} rounds; {rates()}")
    report(contenders, names=given.calls)
    for contender in contenders:
        contender.close()


def report(contenders: Sequence[Contender], *, names: bool) -> None:
    """Print the table, then the evidence that the work was equal."""
    first = contenders[0]
    header = f"{'':14}{'CPU s/step':>11}{'steps/s':>9}{'time / ' + first.name:>22}{'of rounds':>14}"
    print(f"{header}{'peak MiB':>10}{'own':>8}{'rise':>8}{'calls':>8}")
    for contender in contenders:
        seconds, memory = statistics.median(contender.seconds), contender.ask("memory")
        ratios = sorted(theirs / ours for theirs, ours in zip(contender.seconds, first.seconds, strict=True))
        spread = f"{ratios[0]:.3f}-{ratios[-1]:.3f}"
        print(
            f"{contender.name:14}{seconds:11.2f}{1 / seconds:9.4f}{statistics.median(ratios):22.3f}{spread:>14}"
            f"{memory['peak']:10,.0f}{memory['peak'] - memory['imported']:8,.0f}{memory['peak'] - memory['built']:8,.0f}"
            f"{contender.counted['calls']:8,}"
        )
    for contender in contenders:
        versions = ", ".join(f"{name} {number}" for name, number in contender.versions.items())
        rows = ", ".join(f"{name} {count:,}" for name, count in contender.counted["rows"].items())
        terms = ", ".join(f"{name} {value:.4f}" for name, value in contender.counted["terms"].items())
        print(f"{contender.name}: {versions}; {rows}; terms of the loss: {terms or 'none'}")
        if names:
            print("    calls: " + ", ".join(f"{name} {count:,}" for name, count in contender.counted["by_name"].items()))


def rates() -> str:
    return f"matrix product {gemm_rate():.0f} GFLOP/s, {decode_rate():.0f} JPEGs of 512 px/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="samples a step")
    parser.add_argument("--prototypes", type=int, nargs="+", default=[4096, 65536], help="K; one table each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=NAMES, help="these contenders; ratios are to the first")
    parser.add_argument("--calls", action="store_true", help="also list the kernel-like calls by name")
    parser.add_argument("--lightly-python", help="Python of an environment with lightly-train (AGPL: keep it apart)")
    parser.add_argument("--dinov2", type=lambda value: Path(value).resolve(), help="checkout of facebookresearch/dinov2")
    parser.add_argument("--dinov2-python", default=sys.executable, help="Python with omegaconf, fvcore, iopath, torchvision")
    given = parser.parse_args()
    for prototypes in given.prototypes:
        compare(given, prototypes)


if __name__ == "__main__":
    main()
