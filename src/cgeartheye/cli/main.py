"""The entrance: builds the command line and turns errors into exit codes. Nothing here imports torch or GDAL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import typer

from cgeartheye import __version__
from cgeartheye.cli.adapt import adapt_verb
from cgeartheye.cli.backbones import backbones_verb
from cgeartheye.cli.call import leave, with_call
from cgeartheye.cli.catalog import catalog_verb
from cgeartheye.cli.curate import curate_verb
from cgeartheye.cli.demo import demo_verb
from cgeartheye.cli.doctor import doctor_verb
from cgeartheye.cli.evaluate import evaluate_verb
from cgeartheye.cli.export import export_verb
from cgeartheye.cli.map import map_verb
from cgeartheye.cli.plan import plan_verb
from cgeartheye.cli.pretrain import pretrain_verb
from cgeartheye.cli.report import report_verb
from cgeartheye.cli.run import run_verb

STAGE_VERBS: dict[str, Callable[..., None]] = {
    "run": run_verb,
    "catalog": catalog_verb,
    "curate": curate_verb,
    "pretrain": pretrain_verb,
    "evaluate": evaluate_verb,
    "adapt": adapt_verb,
    "map": map_verb,
    "report": report_verb,
}


def _version(given: bool) -> None:  # noqa: FBT001 - typer's callback
    if given:
        typer.echo(f"cgeartheye {__version__}")
        raise typer.Exit


def _callback(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """An archive of very-high-resolution imagery -> a vision foundation model -> maps."""
    del version


def build_app() -> typer.Typer:
    """Return the application with every verb."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_callback)
    for name, verb in STAGE_VERBS.items():
        app.command(name)(with_call(verb))
    app.command("plan")(plan_verb)
    app.command("export")(export_verb)
    app.command("backbones")(backbones_verb)
    app.command("demo")(demo_verb)
    app.command("doctor")(doctor_verb)
    return app


def main() -> None:
    """Run the command line and end the process."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    leave(lambda: build_app()(prog_name="cgeartheye"))
