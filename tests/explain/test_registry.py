"""The registry of methods: its records, their notation, and what is refused."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import classlens
from classlens.explain.class_gradient import class_gradient_maps, class_gradient_streamed
from classlens.explain.method import Method
from classlens.explain.registry import METHODS, method_of, parse_method, split_method
from tests import zoo
from tests.refusals import refused


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys; from classlens.explain.registry import METHODS, split_method; "
        "print(*METHODS); split_method('class_gradient:loss=logit'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_record_is_complete(name: str) -> None:
    method = METHODS[name]
    assert isinstance(method, Method)
    assert method.dims[0] == "image"
    assert method.dims[-1] == "token"
    assert set(method.dims[1:-1]) <= {"block", "head"}
    assert method.label
    assert method.about.endswith(".")
    assert "\n" not in method.about
    assert inspect.getdoc(method.run)
    kinds = {"attention weights", "gradients", "linear pooling", "classes or labels", "exclusive classes"}
    assert set(method.needs) <= kinds


def test_labels_are_distinct() -> None:
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


def test_options_come_from_the_signature() -> None:
    assert METHODS["class_gradient"].defaults == {"loss": None, "against": None, "query": None}
    assert METHODS["random"].defaults == {"seed": 0}
    assert METHODS["legrad"].options == ("against", "pool")
    assert METHODS["attention"].options == ("query",)
    keywords = [
        [name for name, option in inspect.signature(run).parameters.items() if option.kind is option.KEYWORD_ONLY]
        for run in (class_gradient_maps, class_gradient_streamed)
    ]
    assert keywords[0] == keywords[1], "a streamed form has the options of the method"


def test_options_that_follow_from_others() -> None:
    resolve = METHODS["class_gradient"].resolve
    given = {"against": 3}
    assert resolve(given) == {"against": 3, "loss": "logit"}
    assert given == {"against": 3}
    assert resolve({}) == {"loss": "cross_entropy"}
    assert resolve({"loss": "double_softmax"}) == {"loss": "double_softmax"}
    refused(lambda: resolve({"loss": "cross_entropy", "against": 3}), "difference of two logits")
    seed = {"seed": 3}
    assert METHODS["random"].resolve(seed) == seed
    assert METHODS["random"].resolve(seed) is not seed


def test_a_method_of_one_s_own() -> None:
    """One record and one row: options, errors and maps know of it at once."""

    def constant(recording: object, target: object, *, value: float = 1.0) -> object:
        tokens = METHODS["random"].run(recording, target)
        return tokens * 0 + value

    METHODS.register("constant", Method(constant, ("image", "token"), "constant", "The same for every token."))
    try:
        lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
        for maps in (lens.trace(pixels).explain(method="constant", value=3.0), lens.explain(pixels, method="constant")):
            assert maps.dims == ("image", "token")
        assert (lens.trace(pixels).map(method="constant", value=3.0) == 3).all()
        assert parse_method("constant:value=2") == ("constant", {"value": 2})
        refused(lambda: lens.trace(pixels).explain(method="constan"), "did you mean 'constant'", *METHODS)
        refused(lambda: method_of("constant", ["seed"]), "'constant' has no option 'seed'", "its options are value")
    finally:
        METHODS.unregister("constant")
    assert "constant" not in METHODS


def test_notation() -> None:
    assert parse_method("class_gradient:loss=logit:query=3") == ("class_gradient", {"loss": "logit", "query": 3})
    assert parse_method("rollout") == ("rollout", {})
    assert split_method("unheard_of:value=a=b") == ("unheard_of", {"value": "a=b"})
    assert split_method("unheard_of:a=-2:b=1.5:c=-1e-3") == ("unheard_of", {"a": -2, "b": 1.5, "c": -0.001})
    refused(lambda: parse_method("class_gradient:loss=logit:loss=cross_entropy"), "the option 'loss' twice")
    refused(lambda: parse_method("class_gradient:loss"), "NAME:OPTION=VALUE")
    refused(lambda: parse_method("chefer:loss=logit"), "'chefer' has no option 'loss'")


def test_refusals() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    refused(lambda: trace.explain(0, method="gradcam"), "did you mean 'grad_cam'")
    refused(lambda: trace.explain(0, method="rollout", loss="logit"), "has no option 'loss'", "its options are query")
    refused(
        lambda: trace.explain(0, method="class_rank", query="cls"), "has no option 'query'", "its options are against"
    )
    refused(lambda: trace.explain(0, method=["rollout"]), "method ['rollout'] cannot be used")  # type: ignore[arg-type]
    refused(lambda: trace.explain("all"), "class 'all' is not one of")
