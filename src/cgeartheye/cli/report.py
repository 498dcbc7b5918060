"""The verb `report`."""

from __future__ import annotations

from cgeartheye.cli.call import Call


def report_verb(call: Call) -> None:
    """Write one self-contained HTML page about the stages that are finished."""
    call.run(["report"])
