"""CPU seconds, wall seconds and peak memory of every stage of the demo, in one run, beside a GEMM and a JPEG-decode rate.

    python performance/demo_cost.py [--out demo] [--quick]

The bar: under 10 minutes on two cores, no process above 6 GB. No peer does the whole job; the two rates say how fast the
machine was, so that runs can be compared.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from rates import decode_rate, gemm_rate

from cgeartheye.files import read_json
from cgeartheye.run import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "cgeartheye", "demo", "--out", str(arguments.out), *(["--quick"] if arguments.quick else [])]
    print(f"GEMM {gemm_rate():.0f} GFLOP a CPU second, JPEG decoding {decode_rate():.0f} pictures of 512 px a CPU second")
    start = time.monotonic()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"whole demo: {time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s, ", end="")
    print(f"largest process {used.ru_maxrss / 2**20:.2f} GB (bars: 600 s, 6 GB)")
    for name, spec in STAGES.items():
        seconds = read_json(arguments.out / spec.folder / "manifest.json")["seconds"]
        print(f"  {name:9s} {seconds:7.1f} s")


if __name__ == "__main__":
    main()
