from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cgeartheye.curation.pieces import Piece, Workers, cut_pieces
from cgeartheye.errors import ResourceError
from cgeartheye.progress import SILENT
from cgeartheye.shards.format import Chip, Place


def _die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_as_such() -> None:
    with Workers(2, SILENT) as workers, pytest.raises(ResourceError, match="killed"):
        workers.run(_die, [(1,), (2,), (3,)], title="x")


def _make(task: int) -> Piece:
    places = tuple(Place(f"p{task}_{i}", (Chip(b"x" * (i + 1), {}),), {"label": "a"}) for i in range(task))
    return Piece(places, ({"place": f"r{task}", "reason": "bad"},), {"read": task, f"only_{task}": 1})


def test_pieces_are_made_once_and_counted_together(tmp_path: Path) -> None:
    first = cut_pieces(_make, [2, 0, 3], tmp_path, workers=Workers(1, SILENT), title="x")
    assert first.rows["place"].to_pylist() == ["p2_0", "p2_1", "p3_0", "p3_1", "p3_2"]
    assert first.counts == {"read": 5, "only_2": 1, "only_0": 1, "only_3": 1}
    assert [row["place"] for row in first.rejected] == ["r2", "r0", "r3"]
    again = cut_pieces(_refuse, [2, 0, 3], tmp_path, workers=Workers(1, SILENT), title="x")
    assert again.rows.equals(first.rows)


def _refuse(task: int) -> Piece:
    raise AssertionError(task)
