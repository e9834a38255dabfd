"""The sum of contributions against the logit."""

from __future__ import annotations

from classlens.tasks.evaluation.metrics.completeness import Completeness
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of

NAME = "cls_not_square"


def test_contributions_sum_to_the_logit() -> None:
    batch = batch_of(lens_of(), zoo.pixels(NAME, 3), zoo.targets(3))
    missing = Completeness().measure(batch, method_of("logit_attribution"))["missing"]
    assert missing.shape == (3,)
    assert (missing < 1e-9).all()


def test_a_changed_contribution_is_noticed() -> None:
    batch = batch_of(lens_of(), zoo.pixels(NAME, 3), zoo.targets(3))
    batch.trace.recording._activations["mlp_out", 1][:] *= 1.01
    assert (Completeness().measure(batch, method_of("logit_attribution"))["missing"] > 1e-4).all()


def test_only_complete_methods_have_a_sum() -> None:
    assert Completeness().applies_to(method_of("logit_attribution"))
    assert not Completeness().applies_to(method_of("chefer"))
