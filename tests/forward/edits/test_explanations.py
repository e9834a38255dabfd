"""Explanations under edits are those of the edited model, or an error; also after the edits have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import AblateHeads, AblateNeurons, AblateSublayer, CutAttention, Edit, KeepTokens, Lens, NoCls, SelfOnly
from classlens.explain.registry import METHODS
from tests import zoo
from tests.refusals import refused

KEPT: dict[str, Callable[[], Edit]] = {
    "cut": lambda: CutAttention("cls", [4, 5], renormalize=True),
    "no_cls": NoCls,
    "self_only": SelfOnly,
    "keep": lambda: KeepTokens(np.array([True, True, True, True, True, False, True])),
    "neurons": lambda: AblateNeurons([0, 3], blocks=[1]),
    "mlp": lambda: AblateSublayer("mlp", blocks=[0, 2]),
}
"""Edits that leave the values of attention as its heads use them."""
CHANGED: dict[str, Callable[[], Edit]] = {
    "heads": lambda: AblateHeads([0], blocks=[2]),
    "attn": lambda: AblateSublayer("attn", blocks=[1]),
}
CLOSED = ("class_gradient", "logit_attribution", "log_odds")
AGAIN = ("attention", "rollout", "chefer", "grad_cam", "legrad", "logit_attribution", "log_odds")
"""Methods that run the model again."""


@pytest.fixture(scope="module")
def lens() -> Lens:
    return classlens.load(zoo.build("cls_registers"))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return zoo.pixels("cls_registers")


@pytest.mark.parametrize("name", KEPT)
def test_contributions_sum_to_the_edited_logit(lens: Lens, pixels: torch.Tensor, name: str) -> None:
    unedited = lens.trace(pixels).model_logits[:, 2]
    with lens.edit(KEPT[name]()):
        trace = lens.trace(pixels)
        parts = trace.attribution(2)
        for method in METHODS:
            assert np.isfinite(trace.explain(2, method=method)).all(), method
    total = parts["embed"] + parts["attention"].sum(["block", "head"]) + parts["mlp"].sum("block") + parts["bias"]
    np.testing.assert_allclose(total, trace.model_logits[:, 2], rtol=1e-6)
    assert abs(trace.model_logits[:, 2] - unedited).max() > 1e-4


@pytest.mark.parametrize("name", CHANGED)
def test_heads_that_an_edit_changes_are_not_attributed(lens: Lens, pixels: torch.Tensor, name: str) -> None:
    with lens.edit(CHANGED[name]()):
        trace = lens.trace(pixels)
        refused(lambda: trace.attribution(2), "something changes it after the heads")
        for method in CLOSED:
            refused(lambda method=method: trace.explain(2, method=method), "edit")  # type: ignore[misc]
        refused(lambda: trace.explain_every_class(), "gradients by attention", "an edit changes")
        refused(lambda: lens.explain(pixels, 2, method="class_gradient"), "gradients by attention", "an edit changes")


def test_an_ablated_head_has_no_gradient(lens: Lens, pixels: torch.Tensor) -> None:
    """LeGrad after the last block: autograd through the edited model."""
    with lens.edit(AblateHeads([0], blocks=[2])):
        maps = lens.trace(pixels).explain(2, method="legrad")
    assert float(abs(maps[:, 2, 0]).max()) == 0
    assert float(abs(maps[:, 2, 1]).max()) > 0


@pytest.mark.parametrize("method", AGAIN)
def test_a_trace_after_its_edits(lens: Lens, pixels: torch.Tensor, method: str) -> None:
    edit: Any = NoCls()
    with lens.edit(edit):
        trace = lens.trace(pixels)
        expected = trace.explain(2, method=method)
    refused(lambda: trace.explain(2, method=method), "these images ran with NoCls", "within the same lens.edit")
    with lens.edit(AblateSublayer("mlp", blocks=[0])):
        refused(lambda: trace.explain(2, method=method), "NoCls")
    with lens.edit(edit):
        assert trace.explain(2, method=method).equals(expected)


def test_a_trace_before_an_edit(lens: Lens, pixels: torch.Tensor) -> None:
    trace = lens.trace(pixels)
    with lens.edit(NoCls()):
        refused(lambda: trace.attribution(2), "these images ran with no edits")
    assert trace.attribution(2).equals(lens.trace(pixels).attribution(2))
