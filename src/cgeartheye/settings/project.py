"""One project file: reading it, overriding it, and telling every fault in it at once."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from cgeartheye.errors import InputError
from cgeartheye.settings.adapt import AdaptSettings
from cgeartheye.settings.base import Settings, StageSettings, UserPath
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.evaluate import EvaluateSettings
from cgeartheye.settings.map import MapSettings
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.report import ReportSettings

SECTIONS: Final[dict[str, type[StageSettings]]] = {
    "catalog": CatalogSettings,
    "curate": CurateSettings,
    "pretrain": PretrainSettings,
    "evaluate": EvaluateSettings,
    "adapt": AdaptSettings,
    "map": MapSettings,
    "report": ReportSettings,
}
"""The settings of each stage, in the order in which `run` takes them."""


class Project(Settings):
    """A project file: one section a stage; a stage without a section is not run."""

    schema_version: Literal[1] = 1
    """Version of this file's format."""
    name: str = Field("project", min_length=1)
    """Title of the project in reports and model cards."""
    out: UserPath = Field(Path("out"))
    """Folder that receives one folder a stage."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of every stage that gives none of its own."""
    threads: int = Field(2, ge=1, le=1024)
    """Threads of numerical libraries in every stage that gives none of its own."""
    catalog: CatalogSettings | None = None
    """Which scenes there are."""
    curate: CurateSettings | None = None
    """Which places are drawn, and their chips."""
    pretrain: PretrainSettings | None = None
    """Self-supervised pre-training."""
    evaluate: EvaluateSettings | None = None
    """Figures of the frozen backbone."""
    adapt: AdaptSettings | None = None
    """A task model from labels."""
    map: MapSettings | None = None
    """Maps of whole scenes."""
    report: ReportSettings | None = None
    """The HTML report."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        InputError: if the file is missing, unreadable, no YAML, or no mapping; line and column are named.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise InputError(
            "there is no such project file", where=str(path), remedy="see docs/quickstart.md for one to copy"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - derives from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise InputError(f"is no valid YAML: {getattr(error, 'problem', error)}", where=where) from error
    if not isinstance(value, dict):
        raise InputError("must hold `key: value` lines at its top", where=str(path))
    return value


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with each ``dotted.key=YAML value`` put in.

    Raises:
        InputError: if an assignment has no ``=`` or its value is no YAML.
    """
    merged: dict[str, Any] = _copy(values)
    for assignment in assignments:
        key, found, text = assignment.partition("=")
        if not found or not key.strip():
            raise InputError(f"{assignment!r} is not of the form key.subkey=value", where="--set")
        try:
            value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - derives from SafeLoader
        except yaml.YAMLError as error:
            raise InputError(f"the value of {key} is no valid YAML", where="--set") from error
        _put(merged, key.strip().split("."), value)
    return merged


def _copy(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _put(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:  # noqa: ANN401 - any YAML value
    for key in keys[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[keys[-1]] = value


def build_project(values: Mapping[str, Any], base: Path, source: str) -> Project:
    """Check all values and return the project; ``base`` is where relative paths start.

    Raises:
        InputError: one error that lists every fault with its key, the value given and what is allowed.
    """
    filled = dict(values)
    for name in SECTIONS:
        section = filled.get(name)
        if section is None and name in filled:
            section = {}  # `report:` alone asks for the stage with its defaults
        if isinstance(section, dict):
            inherited = {key: filled[key] for key in ("seed", "threads") if key in filled}
            filled[name] = {**inherited, **section}
    try:
        return Project.model_validate(filled, context={"base": base})
    except ValidationError as error:
        faults = [_fault(dict(fault)) for fault in error.errors()]
        unique = list(dict.fromkeys(faults))
        count = f"{len(unique)} faults" if len(unique) > 1 else "1 fault"
        raise InputError(
            f"{count}\n" + "\n".join(f"  {fault}" for fault in unique),
            where=source,
            remedy="`cgeartheye VERB --settings` lists every key of a section with its default",
        ) from error


def _fault(fault: dict[str, Any]) -> str:
    location = [part for part in fault["loc"] if not str(part).startswith(("function-", "tagged-"))]
    key = ".".join(map(str, location))
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), list(_known_keys(location[:-1])), n=1)
        return f"{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list) else f" (given: {given!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _known_keys(location: Sequence[Any]) -> Iterator[str]:
    models: list[type[BaseModel]] = [Project]
    for part in location:
        if isinstance(part, int):
            continue
        models = [inner for model in models for inner in _models_of(model, str(part))] or models
    for model in models:
        yield from model.model_fields


def _models_of(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    info = model.model_fields.get(name)
    return list(_nested(info.annotation)) if info is not None else []


def _nested(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _nested(inner)


def load_project(path: Path | None, assignments: Sequence[str] = ()) -> Project:
    """Read a project file (or start from nothing), apply ``--set`` assignments, check everything.

    Relative paths in the file start at its folder; relative paths in assignments too, so absolute ones are safest there.

    Raises:
        InputError: with every fault at once.
    """
    values = read_yaml(path) if path else {}
    base = path.resolve().parent if path else Path.cwd()
    return build_project(override(values, assignments), base, str(path) if path else "the command line")


def describe(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, help text) of every field of a section, nested ones after their parent."""
    for name, info in section.model_fields.items():
        default = "required" if info.is_required() else _shown(info.get_default(call_default_factory=True, validated_data={}))
        yield f"{prefix}{name}", default, " ".join((info.description or "").split())
        for nested in dict.fromkeys(_nested(info.annotation)):
            yield from describe(nested, f"{prefix}{name}.")


def _shown(value: Any) -> str:  # noqa: ANN401 - any default
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple):
        return str([_shown(v) for v in value]) if value else "[]"
    return "null" if value is None else str(value)
