"""Questions that a gallery answers: which photos come first, which are left out, and what colors them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from classlens.registry import Registry

Relation = Literal["equals", "above", "below"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about photos: one row of ``QUESTIONS``.

    Columns are those of ``GalleryTable.images``; a question about one that a store lacks is shown with the reason.
    """

    label: str
    about: str
    sort: str = "index"
    falling: bool = False
    """Whether the largest value comes first."""
    color: str = "correct"
    where: tuple[tuple[str, Relation, float], ...] = ()
    """Photos are shown where every column stands in its relation to the number."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs; photos may do without its color."""
        return tuple(dict.fromkeys((self.sort, *(column for column, _, _ in self.where))))


_WRONG: tuple[tuple[str, Relation, float], ...] = (("correct", "equals", 0),)

QUESTIONS: Registry[Question] = Registry(
    "question",
    {
        "all": Question(label="All photos", about="Every measured photo, in the order of the data."),
        "wrong": Question(
            label="Wrong predictions",
            about="Photos whose prediction is not their label, the surest first.",
            sort="confidence",
            falling=True,
            color="confidence",
            where=_WRONG,
        ),
        "confused": Question(
            label="Confusion pairs",
            about="Wrong predictions by pair of label and prediction, the most frequent pair first.",
            sort="confusion",
            color="confidence",
            where=_WRONG,
        ),
        "doubtful": Question(
            label="Most doubtful",
            about="Predictions that are most likely wrong, going by the decisions after every block.",
            sort="doubt",
            falling=True,
            color="doubt",
        ),
        "close": Question(
            label="Close calls",
            about="The class on top and the next one have almost the same logit.",
            sort="margin",
            color="margin",
        ),
        "late": Question(
            label="Committed late",
            about="The prediction came on top in one of the last blocks.",
            sort="commitment",
            falling=True,
            color="commitment",
        ),
        "changed": Question(
            label="Changed its mind",
            about="In an earlier block the runner-up was far ahead of the prediction.",
            sort="change_of_mind",
            falling=True,
            color="change_of_mind",
            where=(("change_of_mind", "above", 0),),
        ),
        "restless": Question(
            label="Many changes",
            about="The class on top changed from block to block.",
            sort="changes",
            falling=True,
            color="changes",
        ),
        "tokens": Question(
            label="Class in many tokens",
            about="Many image tokens have the class on top after the last block.",
            sort="on_top",
            falling=True,
            color="on_top",
        ),
        "few_tokens": Question(
            label="Right with few tokens",
            about="The prediction is right, and few image tokens have the class on top.",
            sort="on_top",
            color="on_top",
            where=(("correct", "equals", 1),),
        ),
        "context": Question(
            label="Context carries the class",
            about="Tokens beside the object have the class on top more often than tokens of the object.",
            sort="context_lead",
            falling=True,
            color="context_lead",
            where=(("context_lead", "above", 0),),
        ),
        "outliers": Question(
            label="Outlier norm",
            about="An image token is far longer than the others.",
            sort="largest_norm",
            falling=True,
            color="largest_norm",
        ),
        "attention": Question(
            label="Written by attention",
            about="Heads add more to the prediction than MLPs do.",
            sort="attention_lead",
            falling=True,
            color="attention_lead",
        ),
    },
)
