"""CPU seconds of `cgeartheye --help` beside an empty typer + rich application with as many verbs, in one run.

    python performance/help_cost.py [--runs 5]

Prints both medians and their difference; the bar is at most 0.15 CPU seconds more. Peers: none, the limit is typer itself.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cgeartheye.cli.main import build_app

EMPTY = """
import typer
app = typer.Typer(no_args_is_help=True, add_completion=False)
def make(number):
    def verb(name: str = typer.Option("x", help="A name.")) -> None:
        "Do something with a name."
    return verb
for number in range({verbs}):
    app.command(f"verb{{number}}")(make(number))
app()
"""


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    verbs = len(build_app().registered_commands)
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY.format(verbs=verbs))
        ours = [sys.executable, "-m", "cgeartheye", "--help"]
        peer = [sys.executable, str(empty), "--help"]
        for command in (ours, peer):
            cpu_seconds(command)
        pairs = [(cpu_seconds(ours), cpu_seconds(peer)) for _ in range(runs)]
    ours_s, peer_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    difference = statistics.median(a - b for a, b in pairs)
    print(f"{verbs} verbs, median of {runs}: ours {ours_s:.3f} CPU s, empty application {peer_s:.3f} CPU s")
    print(f"difference {difference:.3f} CPU s (bar 0.150), ratio {ours_s / peer_s:.2f}")


if __name__ == "__main__":
    main()
