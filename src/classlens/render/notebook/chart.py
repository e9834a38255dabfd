"""Small charts over blocks as SVG, drawn in the notebook's text color beside the colors of the palette."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from classlens.render.notebook.elements import FONT, Markup, block, element

_LEFT, _RIGHT = 46.0, 8.0
_LETTER = 6.2
"""Width of a digit at the size of the charts' text."""


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: one column for each label."""

    labels: Sequence[str]

    @property
    def step(self) -> float:
        return min(40.0, max(13.0, 300.0 / len(self.labels)))

    @property
    def width(self) -> float:
        return _LEFT + self.step * len(self.labels) + _RIGHT

    def x(self, number: int) -> float:
        """Middle of a column."""
        return _LEFT + (number + 0.5) * self.step

    def every(self, texts: Sequence[str]) -> int:
        """How many columns a text of these takes."""
        return max(1, -int(-(max(map(len, texts)) * _LETTER + 4) // self.step))

    def texts(self, texts: Sequence[str], y: float, name: str) -> Iterator[Markup]:
        """A row of texts, as many as there is room for, with its name on the left; the last is among them."""
        every, last = self.every(texts), len(texts) - 1
        yield text(name, _LEFT - 6, y, "end", muted=True)
        for number, each in enumerate(texts):
            if (last - number) % every == 0:
                yield text(each, self.x(number), y, "middle")

    def line(self, ys: Sequence[float | None], color: str, titles: Sequence[str], *, square: bool = False) -> Markup:
        """A line with a mark on each column, without those of None."""
        points = [
            (self.x(number), y, title)
            for number, (y, title) in enumerate(zip(ys, titles, strict=True))
            if y is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        marks = [_mark(x, y, color, title, square) for x, y, title in points]
        line = element("polyline", points=path, style=f"fill:none;stroke:{color};stroke-width:1.8;")
        return Markup(line + "".join(marks))

    def rule(self, y: float, name: str, *, dashed: bool = False) -> Markup:
        """A horizontal line with its value on the left."""
        dash = "stroke-dasharray:2 3;" if dashed else ""
        style = f"color:inherit;stroke:currentColor;stroke-opacity:0.3;stroke-width:1;{dash}"
        line = element("line", x1=_LEFT, x2=self.width - _RIGHT, y1=y, y2=y, style=style)
        return Markup(line + text(name, _LEFT - 6, y + 4, "end", muted=True))

    def chart(self, *parts: Markup, height: float, about: str) -> Markup:
        """The whole chart; ``about`` says in words what it shows. It scrolls where it is wide."""
        svg = element(
            "svg",
            *parts,
            viewBox=f"0 0 {self.width:g} {height:g}",
            width=self.width,
            height=height,
            role="img",
            aria_label=about,
            style=f"display:block;color:inherit;width:{self.width:g}px;height:{height:g}px;max-width:none;overflow:visible;",
        )
        return block(svg, style="overflow-x:auto;max-width:100%;padding:2px 0;")


def text(value: str, x: float, y: float, anchor: str, *, muted: bool = False, color: str = "currentColor") -> Markup:
    style = f"color:inherit;fill:{color};stroke:none;font:11px {FONT};{'opacity:0.75;' if muted else ''}"
    return element("text", value, x=x, y=y, text_anchor=anchor, style=style)


def rectangle(x: float, y: float, width: float, height: float, style: str, title: str) -> Markup:
    return element("rect", element("title", title), x=x, y=y, width=width, height=max(height, 0.0), style=style)


def _mark(x: float, y: float, color: str, title: str, square: bool) -> Markup:
    shown, style = element("title", title), f"fill:{color};stroke:none;"
    if square:
        return element("rect", shown, x=x - 3.5, y=y - 3.5, width=7, height=7, style=style)
    return element("circle", shown, cx=x, cy=y, r=3.5, style=style)
