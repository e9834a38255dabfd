"""How a table wants to be drawn: settings alone, so that a figure can be drawn again from its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure of a table. Panels stand side by side for each model, below each other for each of ``rows``."""

    value: str
    """What the value is, on its axis."""
    suffix: str = ""
    """Of the file's name, where a table has more than one figure."""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Only rows with one of these values, in that order."""
    rows: str | None = None
    columns: str | None = "model"
    across: int = 4
    """Panels side by side at most; others go on below."""


@dataclass(frozen=True, kw_only=True)
class Lines(Chart):
    """A line for each series, with its interval as a band, over blocks or depth."""

    x: str = "block"
    color: str = "tokens"
    dash: str | None = None
    """A column whose first value is drawn solid and the others dashed."""
    whole: bool = True
    """The axis shows all of 0 to 1."""
    x_label: str = "share of blocks passed"
    """Of an axis that does not count blocks."""


@dataclass(frozen=True, kw_only=True)
class Dots(Chart):
    """A point with its interval for each row, named by the columns of ``labels``."""

    labels: tuple[str, ...]
    color: str
    columns: str | None = None


@dataclass(frozen=True, kw_only=True)
class Heat(Chart):
    """Classes by blocks, the highest and the lowest classes where there are many."""

    y: str = "class_name"
    x: str = "block"


LABELS: Mapping[str, str] = {
    "cls": "[CLS]",
    "image": "image tokens",
    "all": "all tokens",
    "attn": "attention",
    "mlp": "MLP",
    "clean": "trained model",
    "random_init": "random twin",
    "self_only": "image tokens see themselves alone",
    "no_cls": "image tokens do not see [CLS]",
    "context_removed": "context removed",
    "class_removed": "class removed",
    "tuned_lens": "tuned lens",
    "probe": "linear probes",
    "probe_pooled": "one probe of all image tokens",
    "probe_logistic": "logistic probes",
    "stored_rank:condition=tuned_lens": "rank by tuned lens",
    "stored_rank:condition=probe": "rank by linear probes",
    "stored_rank:condition=probe_pooled": "rank by one probe of all image tokens",
    "stored_rank:condition=probe_logistic": "rank by logistic probes",
    "attn_out": "attention output",
    "mlp_out": "MLP output",
    "resid_post": "residual stream",
    "block_input": "against the block's input",
    "layer_input": "against the layer's input",
    "previous": "previous block",
    "attention": "attention",
    "none": "none of the three",
    "class": "the class",
    "context": "context",
    "edited": "edited",
    "unedited": "unedited",
    "image_tokens": "image tokens",
    "reference": "counted as published",
    "tokens_identifiable": "tokens identifiable",
    "images_identifiable": "images with at least one",
    "cls_identifiable": "[CLS] identifiable",
    "accuracy": "top-1 accuracy",
    "by_class": "memories of the class (published code)",
    "by_value": "classes of the memories (paper's text)",
    "by_random_class": "memories of a random class (control)",
    "identifiability": "identifiability",
    "attn_rise": "attention raises the class",
    "mlp_rise": "MLP raises the class",
    "correct": "right images",
    "wrong": "wrong images",
    "composition": "composition",
    "match": "match",
    "mean": "mean of the models",
}
"""How values of tables are named where people read them."""
