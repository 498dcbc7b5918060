"""The verb `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cgeartheye.plan import Plan

_NOTE = """FLOPs are matrix products, 2 a multiplication with its addition, of all processes; memory is that of one process at its
fullest moment. A dash is unknown before the stages above it are done; hours of pre-training need --calibrate."""


def plan_verb(  # noqa: PLR0913 - each is an option of the command line
    *,
    project: Annotated[Path, typer.Option("--project", "-p", help="Project file (YAML).", show_default=False)],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. pretrain.steps=100.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; default: `out` of the project.", show_default=False)
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run 20 steps of pre-training here, for hours and peak memory.")
    ] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that will share a batch.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No lines but the result and errors.")] = False,
) -> None:
    """Forecast what each stage takes: places, images, GB, FLOPs, memory, hours; before anything is spent."""
    import json
    import sys

    from cgeartheye.cli.console import listener
    from cgeartheye.plan import PlanRequest, plan_project
    from cgeartheye.settings.project import load_project

    given = [f"out={json.dumps(str(out.absolute()))}"] if out else []
    request = PlanRequest(project=load_project(project, [*given, *(assignments or [])]), steps=calibrate, processes=processes)
    found = plan_project(request, listener(quiet=quiet or as_json))
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        _write(found)


def _write(plan: Plan) -> None:
    from cgeartheye.cli.console import write_table

    head = ["stage", "state", "images", "places", "GB read", "GB on disk", "PFLOP", "GB memory", "hours"]
    rows = [
        [
            name,
            stage.state,
            _count(stage.images),
            _count(stage.places),
            _scaled(stage.input_bytes, 1e9),
            _scaled(stage.disk_bytes, 1e9),
            _scaled(stage.flops, 1e15),
            _scaled(stage.memory_bytes, 1e9),
            _scaled(stage.seconds, 3600),
        ]
        for name, stage in plan.stages.items()
    ]
    notes = [f"{name}: {stage.note}" for name, stage in plan.stages.items() if stage.note]
    write_table("stages", head, rows, note="\n".join([_NOTE, *notes]))
    if plan.pretrain is not None:
        _write_pretrain(plan)


def _write_pretrain(plan: Plan) -> None:
    from cgeartheye.cli.console import write_table

    told = plan.pretrain
    if told is None:
        return
    head = ["phase", "steps", "batch", "passes", "samples", "slots", "GFLOP a step", "PFLOP", "GB memory", "s a step", "hours"]
    rows = [
        [
            str(phase.phase),
            f"{phase.steps:,}",
            str(phase.batch),
            str(phase.passes),
            f"{phase.samples:,}",
            str(phase.slots),
            _scaled(phase.step_flops.total, 1e9),
            _scaled(phase.flops, 1e15),
            _scaled(phase.memory_bytes, 1e9),
            _scaled(phase.seconds_a_step, 1.0),
            _scaled(phase.seconds, 3600),
        ]
        for phase in told.phases
    ]
    lines = [
        f"{told.places:,} places, {told.chips:,} chips; {told.prototypes:,} prototypes; {told.parameters:,} parameters, "
        f"{told.trained_parameters:,} with the heads",
        f"disk {told.disk_bytes / 1e9:.3g} GB in the end, {told.disk_peak_bytes / 1e9:.3g} GB while a checkpoint is written",
        *(f"fullest moment of a step of phase {phase.phase}: {_parts(vars(phase.memory))}" for phase in told.phases),
    ]
    lines += [
        f"measured on {each.device} in phase {number}: {each.seconds_a_step:.4g} s a step, peak {each.peak_bytes / 1e9:.3g} GB"
        for number, each in enumerate(plan.measured)
    ]
    if plan.flops_a_second is not None:
        lines.append(f"{plan.flops_a_second / 1e9:,.1f} GFLOP a second and process, data, optimizer and log included")
    write_table(f"\npretrain {told.backbone}", head, rows, note="\n".join(lines))


def _parts(memory: dict[str, object]) -> str:
    parts = {name: value for name, value in memory.items() if isinstance(value, int) and value}
    return f"{memory['moment']}, " + ", ".join(f"{name} {value / 1e9:.3g} GB" for name, value in parts.items())


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:,.3g}"
