"""placeholder"""

from pathlib import Path


def extrapolate(folder: Path) -> None:
    print(folder)
