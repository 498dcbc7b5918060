"""What every verb shares: its common options, the listener, and errors turned into exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Call:
    """The common options of one call of a verb."""

    project: Annotated[Path | None, typer.Option("--project", "-p", help="Project file (YAML).", show_default=False)] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. pretrain.steps=100.", show_default=False),
    ] = None
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results; default: `out` of the project.", show_default=False)
    ] = None
    redo: Annotated[
        list[str] | None,
        typer.Option(
            "--redo", metavar="STAGE", help="Make a finished stage again; the old folder is kept aside.", show_default=False
        ),
    ] = None
    check: Annotated[bool, typer.Option("--check", help="Validate settings, paths and disk, then stop.")] = False
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of this verb with its default, then stop.")] = (
        False
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no lines but errors.")] = False

    def run(self, stages: Sequence[str] | None, shorthands: Mapping[str, Any] | None = None) -> None:
        """Run the named stages (all of the project if None); ``shorthands`` are dotted keys set by a verb's own flags."""
        if self.settings:
            self.list_settings(stages)
            return
        from cgeartheye.cli.console import listener
        from cgeartheye.run import Request, check_project, run_project
        from cgeartheye.settings.project import load_project

        given = {**({"out": self.out.absolute()} if self.out else {}), **(shorthands or {})}
        short = [f"{key}={json.dumps(value, default=str)}" for key, value in given.items() if value not in (None, [])]
        wanted = [f"{name}={{}}" for name in stages or ()] if self.project is None else []
        project = load_project(self.project, [*wanted, *short, *(self.assignments or [])])
        follows = int(os.environ.get("RANK", "0")) > 0  # torchrun starts this command in every process; one speaks
        progress = listener(quiet=self.quiet or self.as_json or follows)
        request = Request(project, stages=stages, redo=tuple(self.redo or ()))
        result = check_project(request, progress) if self.check else run_project(request, progress)
        if self.as_json and not follows:
            sys.stdout.write(json.dumps(result, indent=1, sort_keys=True, default=str) + "\n")

    def list_settings(self, stages: Sequence[str] | None) -> None:
        """Write every key of the verb's section with default and meaning."""
        from cgeartheye.cli.console import write_settings
        from cgeartheye.settings.project import SECTIONS, describe

        for name in stages or SECTIONS:
            write_settings(name, describe(SECTIONS[name]))


def with_call(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb ``function(call, own options...)`` the common options as well."""
    hints = {f.name: Call.__dataclass_fields__[f.name] for f in fields(Call)}
    annotations = inspect.get_annotations(Call, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=annotations[name])
        for name, f in hints.items()
    ]
    signature = inspect.signature(function, eval_str=True)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in list(signature.parameters.values())[1:]]

    @functools.wraps(function)
    def verb(**given: Any) -> None:  # noqa: ANN401 - typer fills them in
        call = Call(**{name: given.pop(name) for name in hints})
        function(call, **given)

    verb.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]  # read by typer
    verb.__annotations__ = {p.name: p.annotation for p in [*own, *common]}
    del verb.__wrapped__  # typer must see the joined signature
    return verb


def guarded(run: Callable[[], object]) -> int:
    """Call ``run`` and return the exit code: 0 done, 2 the user's input, 3 data, 4 resources, 1 a bug of ours."""
    from cgeartheye.errors import CGEarthEyeError

    try:
        run()
    except CGEarthEyeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except MemoryError:
        sys.stderr.write("error: not enough memory\n  -> choose a smaller batch or backbone, or a machine with more\n")
        return 4
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return 130
    except OSError as error:
        return _operating_system(error)
    except Exception:  # noqa: BLE001 - the last guard before the user sees a traceback
        _LOG.exception("unexpected")
        sys.stderr.write("error: this is a bug of ours; please report the lines above\n")
        return 1
    return 0


def _operating_system(error: OSError) -> int:
    from cgeartheye.errors import ResourceError
    from cgeartheye.files import as_resource_error

    known = as_resource_error(error, Path(str(error.filename or "?")))
    if isinstance(known, ResourceError):
        sys.stderr.write(f"error: {known}\n")
        return known.exit_code
    _LOG.error("operating system", exc_info=error)
    sys.stderr.write(f"error: {error}\n")
    return 1


def leave(run: Callable[[], object]) -> NoReturn:
    """End the process with the exit code of ``run``."""
    raise SystemExit(guarded(run))
