"""Methods as they are written, and what cannot be made of them."""

from __future__ import annotations

import pytest
import torch

import classlens
from classlens.explain.registry import METHODS
from classlens.tasks.evaluation.importance import parse_methods
from tests import zoo
from tests.refusals import refused


def test_options_behind_names() -> None:
    first, second, third = parse_methods(
        ["class_gradient:loss=logit", "grad_cam:block=1", "class_gradient:loss=logit", "chefer"]
    )
    assert (first.text, first.name, first.options) == ("class_gradient:loss=logit", "class_gradient", {"loss": "logit"})
    assert second.options == {"block": 1}
    assert third.text == "chefer"
    assert [one.name for one in parse_methods("all")] == list(METHODS)
    assert [one.name for one in parse_methods("rollout")] == ["rollout"]


def test_importance_is_the_map_of_the_image() -> None:
    lens, pixels, target = classlens.load(zoo.build("cls")), zoo.pixels("cls"), zoo.targets()
    for text, options in (("class_gradient:loss=logit", {"loss": "logit"}), ("class_rank", {}), ("attention", {})):
        (method,) = parse_methods([text])
        expected = lens.trace(pixels).map(target, method=method.name, **options)
        found = method.importance(lens.trace(pixels), target)
        torch.testing.assert_close(found, torch.from_numpy(expected.values).flatten(1))


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
def test_what_is_no_method(methods: list[str], names: tuple[str, ...]) -> None:
    refused(lambda: parse_methods(methods), *names)


def test_values_that_are_not_finite() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    trace = lens.trace(pixels)
    trace.recording.activation("values", 0)[:] = float("nan")
    (method,) = parse_methods(["class_gradient"])
    refused(lambda: method.importance(trace, zoo.targets()), "'class_gradient'", "not finite")
