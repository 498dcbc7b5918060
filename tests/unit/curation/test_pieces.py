from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cgeartheye.curation.parts import Part
from cgeartheye.curation.pieces import Piece, Workers, cut_pieces, gather_pieces
from cgeartheye.errors import ResourceError
from cgeartheye.progress import SILENT
from cgeartheye.shards.format import Chip, Place


def _die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_as_such(tmp_path: Path) -> None:
    made = [tmp_path / str(number) for number in range(3)]
    with Workers(2, SILENT) as workers, pytest.raises(ResourceError, match="killed"):
        workers.run(_die, made, lambda number: (number,), title="x")


def _make(task: int) -> Piece:
    places = tuple(Place(f"p{task}_{i}", (Chip(b"x" * (i + 1), {}),), {"label": "a"}) for i in range(task))
    return Piece(places, ({"place": f"r{task}", "reason": "bad"},), {"read": task, f"only_{task}": 1})


def test_pieces_are_made_once_and_counted_together(tmp_path: Path) -> None:
    cut_pieces(_make, [2, 0, 3], tmp_path, workers=Workers(1, SILENT), title="x")
    first = gather_pieces(tmp_path, 3)
    assert first.rows["place"].to_pylist() == ["p2_0", "p2_1", "p3_0", "p3_1", "p3_2"]
    assert first.counts == {"read": 5, "only_2": 1, "only_0": 1, "only_3": 1}
    assert first.rejected["place"].to_pylist() == ["r2", "r0", "r3"]
    cut_pieces(_refuse, [2, 0, 3], tmp_path, workers=Workers(1, SILENT), title="x")
    assert gather_pieces(tmp_path, 3).rows.equals(first.rows)


def _refuse(task: int) -> Piece:
    raise AssertionError(task)


def _write(path: Path) -> None:
    assert not path.exists()
    path.write_text("made")


def test_parts_share_a_list_without_overlap_whatever_is_there_already(tmp_path: Path) -> None:
    made = [tmp_path / str(number) for number in range(10)]
    made[4].write_text("of an earlier run")
    for part in (Part(2, 3), Part(3, 3)):
        Workers(0, SILENT, part=part).run(_write, made, lambda number: (made[number],), title="x")
    assert [number for number in range(10) if not made[number].exists()] == [0, 3, 6, 9]
    Workers(0, SILENT).run(_write, made, lambda number: (made[number],), title="x")
    assert all(path.exists() for path in made)


def test_a_part_that_needs_all_makes_what_others_have_not_made_by_then(tmp_path: Path) -> None:
    made = [tmp_path / str(number) for number in range(7)]
    todo: list[int] = []

    def arguments(number: int) -> tuple[Path]:
        todo.append(number)
        made[5].touch()  # another part is at work
        return (made[number],)

    Workers(0, SILENT, part=Part(2, 3)).run(_write, made, arguments, title="x", all_needed=True)
    assert todo == [1, 4, 2, 0, 3, 6]
    assert all(path.exists() for path in made)
