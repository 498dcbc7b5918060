"""The family of errors this package raises on purpose, and the exit code each one becomes.

Every message says what was wrong, where, and what to do about it. A class outside this family that reaches
the command line is a bug of ours and exits with 1.
"""

from __future__ import annotations

from typing import ClassVar


class CGEarthEyeError(Exception):
    """Base of all expected failures.

    Args:
        what: the fault, one sentence.
        where: the file, setting or place it was found in.
        remedy: what the user can do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        parts = [f"{where}: {what}" if where else what]
        if remedy:
            parts.append(f"  -> {remedy}")
        super().__init__("\n".join(parts))


class InputError(CGEarthEyeError):
    """The user's settings, flags or paths are wrong."""

    exit_code = 2


class StaleStageError(InputError):
    """A stage folder was made with other settings or inputs than those asked for now."""


class DataError(CGEarthEyeError):
    """Data that was read is broken, contradictory or insufficient."""

    exit_code = 3


class ResourceError(CGEarthEyeError):
    """Disk, memory or another process stands in the way."""

    exit_code = 4


class ShapeError(ValueError):
    """Arrays or tensors given to pure computation do not fit together; a caller's bug, hence no exit code of its own."""
