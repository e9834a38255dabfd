"""Addresses against their description: schemathesis sends what it allows, and what it forbids."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from starlette.applications import Starlette
from starlette.routing import Route

from classlens.explore.app import create_app, openapi
from classlens.explore.explorer import Explorer
from classlens.explore.security import Access
from tests.explore.asking import HOST, ask
from tests.explore.conftest import photo_bytes

schemathesis = pytest.importorskip("schemathesis")

checks = pytest.importorskip("schemathesis.specs.openapi.checks")
# A schema does not say which bytes are a photo, and which names are those of classes: this check would have every one
# taken.
EXAMPLES = 12

if TYPE_CHECKING:
    from schemathesis import Case


@pytest.fixture(scope="module")
def served(explored: Any, small_lens: Any) -> Starlette:
    """One server for all examples."""
    return create_app(Explorer(explored, small_lens, "0.0"), Access({HOST}))


@pytest.fixture(scope="module")
def description(explored: Any, small_lens: Any) -> Any:
    """The description as the server gives it, with a dropped photo that its addresses can name."""
    explorer = Explorer(explored, small_lens, "0.0")
    explorer.uploads.add("dropped.png", photo_bytes())
    return schemathesis.openapi.from_asgi(
        "/api/openapi.json", create_app(explorer, Access({"localhost", "testserver"}))
    )


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_those_described(mode: str, description: Any) -> None:
    for result in description.get_all_operations():
        operation = result.ok()

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        def answers(case: Case[Any]) -> None:
            case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])

        with suppress(Unsatisfiable):  # an address without parameters cannot be asked in a wrong way
            answers()


def test_every_route_is_described(app: Starlette, explorer: Explorer) -> None:
    described = {
        (method.upper(), path.format_map(Names()))
        for path, operations in openapi(explorer)["paths"].items()
        for method in operations
    }
    for route in app.routes:
        assert isinstance(route, Route)
        path = route.path_format.format_map(Names())
        if "{path}" in route.path_format:
            assert any(address.startswith(path.removesuffix("*")) for _, address in described)
            continue
        for method in (route.methods or set()) - {"HEAD"}:
            assert (method, path) in described or path.endswith("/")


class Names(dict[str, str]):
    """The names of parameters do not matter."""

    def __missing__(self, key: str) -> str:
        return "*"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    address=st.sampled_from(
        [
            "/s0/photos/0.html?class={}&against=cat",
            "/s0/photos/{}.html",
            "/api/s0/photos/0/maps?against={}",
            "/s0/atlas/{}.html",
            "/s{}/atlas/index.html",
            "/api/jobs/{}",
            "/api/photos/{}/report.html",
            "/{}",
        ]
    ),
    text=st.one_of(
        st.text(max_size=30), st.integers().map(str), st.sampled_from(["²", "٣", "-0", "1e3", "0x1", "nan"])
    ),
    stray=st.binary(max_size=3),
)
def test_no_text_in_an_address_is_a_mistake_of_ours(address: str, text: str, stray: bytes, served: Starlette) -> None:
    answer = ask(served, address.format(quote(text, errors="replace") + quote(stray)))
    assert answer.status in (200, 202, 400, 404, 405)
    if answer.status >= 400:
        assert "mistake of classlens" not in answer.text
