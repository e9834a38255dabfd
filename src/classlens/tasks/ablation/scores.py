"""How much a head matters for the class of an image: scores that choose heads."""

from __future__ import annotations

from dataclasses import dataclass

from classlens.registry import Registry


@dataclass(frozen=True)
class HeadScore:
    """A score of heads, by image; ``label`` and ``about`` are for tables and figures."""

    label: str
    about: str


HEAD_SCORES: Registry[HeadScore] = Registry(
    "score",
    {
        "ablation": HeadScore(
            "ablation", "total effect: log odds of the label with the model as it is, minus those without the head"
        ),
        "attribution": HeadScore(
            "attribution",
            "direct effect: contribution of the head's output minus that of its reference, with norms and the weights "
            "of rival classes as they are",
        ),
        "attribution_patching": HeadScore(
            "attribution patching",
            "gradient of the log odds by the head's output, times the output minus its reference",
        ),
        "class_gradient": HeadScore("class gradient", "class gradient, summed over image tokens"),
    },
)
CHANCE = "chance"
