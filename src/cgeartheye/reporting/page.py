"""Sections to one HTML text: templates that escape everything, style and script inlined and named by hash in the policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import cgeartheye
from cgeartheye.reporting.blocks import Fact, Section


def render(
    title: str, sections: Sequence[Section], *, facts: Sequence[Fact], verdict: Sequence[str], absent: Sequence[tuple[str, str]]
) -> str:
    """Return the whole page; equal arguments give equal text.

    Args:
        title: of the page.
        sections: in the order of the page.
        facts: the headline's numbers.
        verdict: sentences on what the numbers show.
        absent: stages that have no section, with the reason.
    """
    environment = Environment(
        loader=PackageLoader("cgeartheye.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _static("style.css"), _static("page.js")
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        facts=facts,
        verdict=verdict,
        absent=absent,
        version=cgeartheye.__version__,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
    )


def _static(name: str) -> str:
    return resources.files("cgeartheye.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    """Return the source expression by which a content security policy allows exactly this inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
