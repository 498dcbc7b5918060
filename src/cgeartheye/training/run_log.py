"""``metrics.jsonl``: one line every n steps, none twice after a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cgeartheye.errors import DataError
from cgeartheye.files import write_text

Value = float | int | str | None


class RunLog:
    """Lines of JSON, each with a ``step``.

    Args:
        path: the file; what it holds beyond ``step`` is cut off, because that part of the run is repeated.
        step: steps already done.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        kept = [line for line in read_lines(path) if int(line["step"] or 0) <= step]
        self.empty = not kept
        """Whether nothing was kept when the log was opened."""
        write_text(path, "".join(_text(line) for line in kept))

    def write(self, line: Mapping[str, Value]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(_text(line))


def read_lines(path: Path) -> list[dict[str, Value]]:
    """Return the whole lines of a log; one that a kill cut short is left out, an absent file has none.

    Raises:
        DataError: if a line before the last one is no JSON object with a ``step``.
    """
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8").split("\n")
    lines: list[dict[str, Value]] = []
    for number, text in enumerate(texts[:-1], 1):
        try:
            lines.append({"step": json.loads(text)["step"], **json.loads(text)})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(texts) - 1:
                break
            raise DataError(f"line {number} is no log line ({error})", where=str(path)) from error
    return lines


def _text(line: Mapping[str, Value]) -> str:
    clean = {key: None if isinstance(value, float) and value - value != 0.0 else value for key, value in line.items()}
    return json.dumps(clean, allow_nan=False) + "\n"
