"""Charts: how a table is drawn, as settings alone, so that a figure can be drawn again from its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure of a table, with a panel for each model, and below each other for each value of ``rows``."""

    value: str
    """Label of the axis that shows the value."""
    suffix: str = ""
    """Part of the file name that tells several figures of one table apart."""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values by column: only rows with one of these are drawn, in this order."""
    rows: str | None = None
    columns: str | None = "model"
    chance_label: str = "chance: 1 in C classes"
    """Meaning of the dotted lines, at the values of a column ``chance``."""
    max_columns: int = 4
    """Largest number of panels side by side; further panels go on below."""

    def file_stem(self, name: str) -> str:
        """Name of the figure's file without its ending, for a table of this name."""
        return f"{name}_{self.suffix}" if self.suffix else name


@dataclass(frozen=True, kw_only=True)
class Lines(Chart):
    """A line for each series over blocks or depth, with its interval as a band."""

    x: str = "block"
    color: str = "tokens"
    dash: str | None = None
    """A column whose value ``clean`` is drawn solid and every other value dashed."""
    unit_range: bool = True
    """Whether the value axis shows all of 0 to 1."""
    x_label: str = "share of blocks passed"
    """Label of an x axis that does not count blocks."""


@dataclass(frozen=True, kw_only=True)
class Ribbons(Lines):
    """Shares that sum to 1, stacked over blocks: a ribbon for each value of ``color``."""

    color: str = "class_name"


@dataclass(frozen=True, kw_only=True)
class Dots(Chart):
    """A point with its interval for each row, named by the columns ``labels``."""

    labels: tuple[str, ...]
    color: str
    columns: str | None = None
    unit_range: bool = True
    """Whether the value axis shows all of 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Heat(Chart):
    """Classes by blocks; of many classes only the highest and the lowest."""

    y: str = "class_name"
    x: str = "block"
