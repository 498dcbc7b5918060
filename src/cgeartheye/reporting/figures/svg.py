"""SVG elements as text, with every attribute and every text escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

Attribute = str | float


def element(tag: str, content: Markup | str = "", /, **attributes: Attribute) -> Markup:
    """Return one element; ``stroke_width`` becomes ``stroke-width``, ``class_`` becomes ``class``, text is escaped."""
    # tag and attribute names come from our own code only; values and content may come from anybody's data
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value)) for name, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, content)  # noqa: S704 - tag is ours


def _value(value: Attribute) -> str:
    return number(value) if isinstance(value, int | float) else value


def number(value: float) -> str:
    """Return a coordinate with at most two decimals; non-finite ones would void the drawing and become 0."""
    if not math.isfinite(value):
        return "0"
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def joined(parts: Iterable[Markup]) -> Markup:
    """Return the elements one after the other."""
    return Markup("").join(parts)


def text(x: float, y: float, content: str, class_: str = "tick", anchor: str = "start") -> Markup:
    """Return a text whose baseline starts, has its middle or ends at (x, y) in drawing units."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
    """Return a straight line between two points in drawing units."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def rect(corner: tuple[float, float], width: float, height: float, class_: str, title: str = "") -> Markup:
    """Return a rectangle; ``title`` is shown by the browser when pointed at."""
    inner = element("title", title) if title else Markup("")
    return element("rect", inner, x=corner[0], y=corner[1], width=max(width, 0.0), height=max(height, 0.0), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """Return a polyline or polygon through points in drawing units."""
    body = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{body}{'Z' if closed else ''}", class_=class_)


def dots(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return one path of zero-length strokes, drawn as discs by round caps: small even for thousands of points."""
    return element("path", d="".join(f"M{number(x)} {number(y)}h0" for x, y in points), class_=f"dots {class_}")


def drawing(width: float, height: float, content: Iterable[Markup], *, label: str, class_: str = "chart") -> Markup:
    """Return the whole drawing, scaled to its column; ``label`` is its text for screen readers."""
    return element(
        "svg",
        joined(content),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def swatch(shape: str, class_: str, colour: str = "") -> Markup:
    """Return a small drawing for a legend: ``shape`` is line, box or dot; ``colour`` (#rrggbb) overrides the class's."""
    paint: dict[str, Attribute] = {"fill": colour} if colour else {"class_": class_}
    if shape == "line":
        inner = line((1, 6), (23, 6), class_)
    elif shape == "dot":
        inner = element("path", d="M12 6h0", class_=f"dots {class_}")
    else:
        inner = element("rect", x=6, y=0, width=12, height=12, rx=2, **paint)
    return element("svg", inner, viewBox="0 0 24 12", class_="swatch", aria_hidden="true")
