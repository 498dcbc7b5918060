"""Which code wrote a file."""

from __future__ import annotations

import re
from pathlib import Path

from cgeartheye import __version__

_PACKAGE = Path(__file__).resolve().parents[1]


def code_version() -> str:
    """Return the release and, in a git checkout of this package, its commit: ``0.1.0 (commit 1a2b3c4d5e6f)``."""
    commit = _commit(_PACKAGE.parents[1] / ".git")
    return f"{__version__} (commit {commit[:12]})" if commit else __version__


def _commit(git: Path) -> str | None:
    """Read the commit that is checked out, without running git; None in a work tree or outside a checkout."""
    if not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text().strip()
    name = head.removeprefix("ref: ")
    if name == head:
        return head
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = (git / "packed-refs").read_text() if (git / "packed-refs").is_file() else ""
    match = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed, re.MULTILINE)
    return match[1] if match else None
