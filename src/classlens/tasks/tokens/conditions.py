"""The conditions under which a data set is measured: one table, a row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from classlens import palette
from classlens.errors import ClasslensError, unknown
from classlens.forward.edits.edits import Edit, KeepTokens, NoCls, SelfOnly
from classlens.models.view import ModelView

Subject = Literal["model", "twin", "tuned", "probe"]
_NOTHING: Callable[[Tensor], tuple[Edit, ...]] = lambda _: ()  # noqa: E731


@dataclass(frozen=True)
class Condition:
    """What is done to the model or to its tokens.

    ``edits`` is given which tokens are kept (``[image, token]``, prefix tokens always); ``keeps`` says of image tokens
    which are, by whether they show the image's class.
    """

    note: str
    label: str
    """What figures and tables for people call it."""
    color: str | None = None
    """Its color in figures; None: any free one."""
    edits: Callable[[Bool[Tensor, "image token"]], tuple[Edit, ...]] = _NOTHING
    subject: Subject = "model"
    """What is measured: the model, its random twin, the model through a tuned lens, or by probes."""
    keeps: bool | None = None
    """True: image tokens that show the class; False: the others; None: all, and no masks are needed."""
    cls: bool = False
    """Whether the model needs a ``[CLS]`` token."""


CLEAN = "clean"
CONDITIONS: dict[str, Condition] = {
    CLEAN: Condition("the model as it is", "trained model", palette.BLUE),
    "random_init": Condition(
        "the random twin: the architecture as its library initializes it", "random twin", palette.GRAY, subject="twin"
    ),
    "self_only": Condition(
        "every image token attends to itself alone",
        "image tokens see themselves alone",
        palette.VERMILLION,
        lambda _: (SelfOnly(),),
    ),
    "no_cls": Condition(
        "image tokens do not see [CLS]; rows are not renormalized",
        "image tokens do not see [CLS]",
        palette.ORANGE,
        lambda _: (NoCls(),),
        cls=True,
    ),
    "context_removed": Condition(
        "image tokens that do not show the class are dropped after position embeddings",
        "context removed",
        edits=lambda kept: (KeepTokens(kept),),
        keeps=True,
    ),
    "class_removed": Condition(
        "image tokens that show the class are dropped after position embeddings",
        "class removed",
        edits=lambda kept: (KeepTokens(kept),),
        keeps=False,
    ),
    "tuned": Condition(
        "tokens pass the tuned_lens of a tuned lens before they are projected",
        "tuned lens",
        palette.ORANGE,
        subject="tuned",
    ),
    "probe": Condition(
        "scores of linear probes, one of each token, site and block",
        "linear probes",
        palette.VERMILLION,
        subject="probe",
    ),
    "probe_pooled": Condition(
        "scores of linear probes, one of all image tokens of a site and block",
        "one probe of all image tokens",
        palette.PLUM,
        subject="probe",
    ),
    "probe_logistic": Condition(
        "scores of logistic probes of each token, site and block", "logistic probes", palette.TEAL, subject="probe"
    ),
}
READINGS: tuple[str, ...] = tuple(name for name, each in CONDITIONS.items() if each.subject in ("tuned", "probe"))
"""Conditions that read the same states in another way than by the class embedding."""


def check_conditions(
    names: Sequence[str], view: ModelView, *, masks: bool, data: str, tuned: bool = False, probes: bool = False
) -> tuple[str, ...]:
    """The conditions in the order of the table; raises ClasslensError for one that cannot be measured here."""
    for name in names:
        if name not in CONDITIONS:
            raise unknown("condition", name, CONDITIONS, give="some of")
        if CONDITIONS[name].keeps is not None and not masks:
            raise ClasslensError(
                f"condition {name!r} needs masks that show where the class is, which data {data!r} does not have: give "
                "imagenet-s:ROOT with its segmentation, or leave the condition out"
            )
        if CONDITIONS[name].cls and "cls" not in view.prefix:
            raise ClasslensError(
                f"condition {name!r} needs a [CLS] token, which model {view.name!r} does not have: leave it out"
            )
        if CONDITIONS[name].subject == "tuned" and not tuned:
            raise ClasslensError(
                f"condition {name!r} needs a tuned lens: give tuned_lens=FILE (--tuned-lens), which `classlens tune` "
                "writes, or leave the condition out"
            )
        if CONDITIONS[name].subject == "probe" and not probes:
            raise ClasslensError(
                f"condition {name!r} needs probes: give probes=FOLDER (--probes), the --out of `classlens probe`, or "
                "leave the condition out"
            )
    if not names:
        raise ClasslensError(f"no conditions were given: give some of {', '.join(CONDITIONS)}")
    return tuple(name for name in CONDITIONS if name in names)
