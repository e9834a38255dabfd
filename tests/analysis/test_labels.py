"""Names and colors of values."""

from __future__ import annotations

import pytest

from classlens import palette
from classlens.analysis.labels import LABELS, Label, label_text, method_label
from classlens.explain.registry import METHODS
from classlens.tasks.tokens.conditions.registry import CONDITIONS


def test_conditions_have_the_labels_of_their_records() -> None:
    for name, condition in CONDITIONS.items():
        assert LABELS[name] == (condition.label, condition.color)
    assert label_text("clean", LABELS) == CONDITIONS["clean"].label
    assert label_text("no such value", LABELS) == "no such value"
    assert label_text(0.5, LABELS) == "0.5"


def test_labels_differ() -> None:
    texts = [label.text for label in LABELS.values()]
    assert len(set(texts)) == len(texts)
    colors = [label.color for name, label in LABELS.items() if name in ("cls", "image")]
    assert colors == [palette.CLS, palette.IMAGE_TOKENS]
    assert not {palette.CLS, palette.IMAGE_TOKENS} & set(palette.SERIES)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("chefer", ("Chefer", METHODS["chefer"].color)),
        ("random", ("random", palette.GRAY)),
        ("class_gradient", ("class gradient", palette.BLACK)),
        ("class_gradient:loss=double_softmax", ("class gradient, loss double softmax", None)),
        ("grad_cam:block=2", ("Grad-CAM, block 2", None)),
        ("stored_rank:condition=probe", ("rank by linear probes", palette.VERMILLION)),
        ("stored_rank:condition=probe:site=attn_out", ("rank by linear probes, site attn out", None)),
    ],
)
def test_methods_with_their_options(text: str, label: Label) -> None:
    assert method_label(text) == label
