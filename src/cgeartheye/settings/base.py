"""What all settings share: frozen, strict, paths with ``${NAME}``, and an identity that decides staleness."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.config import JsonDict

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _expand(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever the user wrote
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    missing = [name for name in _VARIABLE.findall(text) if name not in os.environ]
    if missing:
        message = f"the environment variable {missing[0]} is not set; export it, or write the folder itself"
        raise ValueError(message)
    path = Path(_VARIABLE.sub(lambda match: os.environ[match.group(1)], text)).expanduser()
    base = (info.context or {}).get("base")
    return path if base is None or path.is_absolute() else Path(base) / path


UserPath = Annotated[Path, BeforeValidator(_expand)]
"""A path as a user writes it: ``${NAME}`` and ``~`` expand, a relative one starts at the project file's folder."""


def _backbone(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever the user wrote
    text = str(value)
    if text.startswith("timm:"):
        return text
    if text.startswith("hf:"):
        return f"hf:{_expand(text.removeprefix('hf:'), info)}"
    return _expand(value, info)


BackboneSpec = Annotated[Path | str, BeforeValidator(_backbone)]
"""A folder that `pretrain` wrote, ``timm:NAME``, or ``hf:PATH``."""


def _address(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever the user wrote
    return str(value) if "://" in str(value) else _expand(value, info)


Address = Annotated[Path | str, BeforeValidator(_address)]
"""A path as in :data:`UserPath`, or a URL, which stays a text."""

NOT_IDENTITY: JsonDict = {"identity": False}
"""``json_schema_extra`` of fields that change how work is done but never what comes out."""


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, attribute docstrings are the help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    def identity(self) -> dict[str, Any]:
        """Return the JSON form of all values that decide the result.

        Paths are left out, because inputs are known by their content, and so are fields marked :data:`NOT_IDENTITY`.
        """
        kept: dict[str, Any] = {}
        dumped = self.model_dump(mode="json")
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            extra = info.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") is False:
                continue
            if _is_path(value) or (value is None and _may_be_path(info.annotation)):
                continue
            kept[name] = _identity(value, dumped[name])
        return kept


def _is_path(value: Any) -> bool:  # noqa: ANN401 - any field value
    return isinstance(value, Path) or (
        isinstance(value, tuple | list) and bool(value) and all(isinstance(v, Path) for v in value)
    )


def _may_be_path(annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    return annotation is Path or any(_may_be_path(inner) for inner in getattr(annotation, "__args__", ()))


def _identity(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - any field value
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, tuple | list):
        return [_identity(v, d) for v, d in zip(value, dumped, strict=True)]
    return dumped


class StageSettings(Settings):
    """What every stage has."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of every random draw of the stage."""
    threads: int = Field(2, ge=1, le=1024, json_schema_extra=NOT_IDENTITY)
    """Threads of numerical libraries; "bit for bit" is promised for one value of it."""
