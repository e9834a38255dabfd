"""Importances: their notation, their maps and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classlens.explain.registry import METHODS
from classlens.tasks.evaluation.importance import MethodImportance, StoredImportance, parse_methods
from tests import zoo
from tests.refusals import refused
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of


def test_options_follow_the_name() -> None:
    first, second, third = parse_methods(
        ["class_gradient:loss=logit", "grad_cam:block=1", "class_gradient:loss=logit", "chefer"]
    )
    assert isinstance(first, MethodImportance)
    assert (first.text, first.name, first.options) == ("class_gradient:loss=logit", "class_gradient", {"loss": "logit"})
    assert second.options == {"block": 1}
    assert third.text == "chefer"
    assert [importance.text for importance in parse_methods("all")] == list(METHODS)
    assert [importance.text for importance in parse_methods("rollout")] == ["rollout"]


def test_importance_is_the_map_of_the_image() -> None:
    lens, pixels, target = lens_of("cls"), zoo.pixels("cls"), zoo.targets()
    for text, options in (("class_gradient:loss=logit", {"loss": "logit"}), ("class_rank", {}), ("attention", {})):
        importance = method_of(text)
        expected = lens.trace(pixels).map(target, method=importance.name, **options)
        torch.testing.assert_close(
            importance.explain(lens.trace(pixels), target), torch.from_numpy(expected.values).flatten(1)
        )


def test_properties_of_methods() -> None:
    drawn = {importance.text for importance in parse_methods("all") if importance.drawn}
    complete = {importance.text for importance in parse_methods("all") if importance.complete}
    assert (drawn, complete) == ({"random"}, {"logit_attribution"})
    (stored,) = parse_methods("stored_rank:condition=probe")
    assert (stored.drawn, stored.complete, stored.live) == (False, False, False)


def test_stored_importance_by_index_of_the_image() -> None:
    values = np.arange(20.0, dtype=np.float32).reshape(5, 4)
    importance = StoredImportance("stored_rank:condition=probe", {}, values)
    lens = lens_of("cls")
    batch = batch_of(lens, zoo.pixels("cls", 2), zoo.targets(2), first=3)
    assert batch.maps(importance).tolist() == values[3:5].tolist()


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        ([], ("no methods", "class_gradient")),
        (["gradcam"], ("'gradcam'", "did you mean 'grad_cam'")),
        (["chefer:loss=logit"], ("'chefer'", "'loss'")),
        (["class_gradient:loss=logit:loss=cross_entropy"], ("'loss' twice",)),
        (["class_gradient:loss"], ("'class_gradient:loss'", "NAME:OPTION=VALUE")),
        (["class_gradient:query=cls"], ("'class_gradient:query=cls'", "query")),
        (["class_gradient:against=3"], ("'class_gradient:against=3'", "against")),
        (["random:seed=3"], ("'random:seed=3'", "seeds are those of the whole run")),
    ],
)
def test_wrong_methods(methods: list[str], names: tuple[str, ...]) -> None:
    refused(lambda: parse_methods(methods), *names)


def test_values_that_are_not_finite() -> None:
    trace = lens_of("cls").trace(zoo.pixels("cls"))
    trace.recording._activations["values", 0][:] = float("nan")
    refused(lambda: method_of("class_gradient").explain(trace, zoo.targets()), "'class_gradient'", "not finite")
