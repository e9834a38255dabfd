"""Plans of edits: every value is a plan or one sentence, and text says the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classlens.errors import ClasslensError
from classlens.forward.edits.registry import EDITS
from classlens.render.edit_record.fields import edit_options
from classlens.render.edit_record.notation import edit_of_text
from classlens.render.edit_record.plan import EditPlan, PlannedEdit, plan_of, planned_edit, read_plan

T = TypeVar("T")


def edit(**values: Any) -> dict[str, Any]:
    return {"edits": [values]}


HEADS = {"edit": "AblateHeads", "heads": [3], "blocks": [4]}
BAD: list[tuple[Any, str]] = [
    (None, "the edits None"),
    ([], "the edits []"),
    ({"edit": []}, "key 'edit' is not known; did you mean 'edits'?"),
    ({"edits": {}}, "edits {} cannot"),
    ({"edits": [[]]}, "an edit []"),
    ({"edits": [{}]}, "edit None has no name"),
    ({"edits": [HEADS] * 201}, "201 edits were given: give at most 200"),
    (edit(edit="AblateHead", heads=[1]), "edit 'AblateHead' is not known; did you mean 'AblateHeads'"),
    (edit(edit="AblateHeads"), "edit AblateHeads needs heads"),
    (edit(edit="AblateHeads", heads=[]), "heads [] of edit AblateHeads"),
    (edit(edit="AblateHeads", heads=[1, -1]), "heads -1 of"),
    (edit(edit="AblateHeads", heads=[True]), "heads True of"),
    (edit(edit="AblateHeads", heads=[1.0]), "heads 1.0 of"),
    (edit(edit="AblateHeads", heads=float("nan")), "heads nan of"),
    (edit(edit="AblateHeads", heads=[3, 1, 3]), "has 3 twice"),
    (edit(edit="AblateHeads", heads="some"), "heads 'some' of"),
    (edit(edit="AblateHeads", heads=[10**30]), "heads 1000000"),
    (edit(edit="AblateHeads", heads=[1], to="mean"), "did you mean 'means'?"),
    (edit(edit="AblateHeads", heads=[1], to=0), "to of edit AblateHeads '0' is not known"),
    (edit(edit="AblateHeads", heads=[1], tokens="c l s"), "tokens 'c l s' of"),
    (
        edit(edit="AblateHeads", heads=[1], head=[1]),
        "option of edit AblateHeads 'head' is not known; did you mean 'heads'",
    ),
    (edit(edit="KeepTokens", mask="all"), "mask 'all' of"),
    (edit(edit="NoCls", renormalize=1), "renormalize 1 of edit NoCls cannot be used: give true or false"),
    (edit(edit="AblateSublayer", sublayer="mpl"), "did you mean 'mlp'"),
    (edit(edit="Patch", site="resid_post", source=[1]), "option of edit Patch 'source'"),
    (edit(edit="Patch", site="resid_post"), "a patch needs the photo"),
    ({"edits": [HEADS], "source": {"photo": 1}}, "no edit is a patch"),
    ({"edits": [], "source": {"photo": -1}}, "source {'photo': -1}"),
    ({"edits": [], "source": {"photo": 1, "dropped": "a"}}, "source"),
    ({"edits": [], "target": "cat"}, "target 'cat'"),
    ({"edits": [], "target": True}, "target True"),
    ({"edits": [], "target": 1, "against": 1}, "are both class 1"),
]


@pytest.mark.parametrize(("value", "words"), BAD)
def test_bad_plans_are_one_sentence(value: Any, words: str) -> None:
    with pytest.raises(ClasslensError) as caught:
        plan_of(value)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert ". " not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"edits": [], "edits": []}', "key 'edits' was given twice"),
        ('{"edits": [{"edit": "NoCls", "edit": "SelfOnly"}]}', "key 'edit' was given twice"),
        ('{"edits": [], "target": NaN}', "number NaN"),
        ('{"edits": [], "target": 1e999}', "target inf"),
        ("{", "no JSON"),
        (b"\xff", "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_bad_json_is_one_sentence(text: str | bytes, words: str) -> None:
    with pytest.raises(ClasslensError, match=words):
        read_plan(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AblateHeads:heads", "is not NAME:OPTION=VALUE"),
        ("AblateHeads:heads=", "is not NAME:OPTION=VALUE"),
        ("AblateHeads:heads=1:heads=2", "has the option 'heads' twice"),
        ("AblateHeads:heads=5-2", "range '5-2'"),
        ("AblateHeads:heads=0-999999999", "range '0-999999999'"),
        ("Ablate:heads=1", "did you mean"),
        ("", "edit '' is not known"),
    ],
)
def test_bad_texts_are_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ClasslensError, match=words):
        edit_of_text(text)


def test_plan_has_all_that_json_says() -> None:
    text = {
        "edits": [HEADS, {"edit": "Patch", "site": "heads", "heads": "all", "tokens": "image", "blocks": 2}],
        "target": 3,
        "against": 5,
        "source": {"dropped": "cat"},
    }
    heads = PlannedEdit("AblateHeads", {"heads": (3,), "blocks": (4,)})
    patch = PlannedEdit("Patch", {"site": "heads", "heads": "all", "tokens": "image", "blocks": (2,)})
    assert read_plan(json.dumps(text)) == EditPlan((heads, patch), 3, 5, "cat")


def test_every_edit_of_the_registry_has_plain_options() -> None:
    assert {name: [option.kind for option in edit_options(name).values()] for name in EDITS} == {
        "CutAttention": ["tokens", "tokens", "flag", "indices", "indices"],
        "NoCls": ["flag", "indices", "indices"],
        "SelfOnly": ["indices", "indices"],
        "KeepTokens": ["mask"],
        "AblateHeads": ["indices", "indices", "tokens", "replacement"],
        "AblateNeurons": ["indices", "indices", "tokens", "replacement", "choice"],
        "AblateSublayer": ["choice", "indices", "tokens", "replacement"],
        "Patch": ["choice", "source", "indices", "tokens", "indices"],
    }


# --- anything at all

NAMES = st.sampled_from(
    [*EDITS, "edit", "edits", "target", "source", "photo", "dropped", "heads", "blocks", "mask", "to"]
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), NAMES, st.text(max_size=4), st.sampled_from(["all", "zero"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def near_plans(draw: st.DrawFn) -> Any:
    """Plans of real names, with values of any kind."""

    def near_edit() -> Any:
        name = draw(st.sampled_from(list(EDITS)))
        options = {option: draw(JSON) for option in edit_options(name) if draw(st.booleans())}
        return {"edit": name, **options}

    plan = {"edits": [near_edit() for _ in range(draw(st.integers(0, 2)))]}
    return plan | {key: draw(JSON) for key in ("target", "against", "source") if draw(st.booleans())}


def one_sentence(make: Callable[[], T]) -> T | None:
    """The result, or None where what is given is refused in one sentence."""
    message, result = "", None
    try:
        result = make()
    except ClasslensError as error:
        message = str(error)
    assert "\n" not in message
    return result


def plan_or_sentence(value: Any) -> EditPlan | None:
    return one_sentence(lambda: plan_of(value))


@given(JSON | near_plans())
def test_any_value_is_a_plan_or_a_sentence(value: Any) -> None:
    plan = plan_or_sentence(value)
    for each in plan.edits if plan else ():
        assert planned_edit(edit_of_text(each.text)) == each


@given(st.text() | st.binary() | JSON.map(lambda value: json.dumps(value)))
def test_any_text_is_a_plan_or_a_sentence(text: str | bytes) -> None:
    one_sentence(lambda: read_plan(text))


@given(
    st.text() | st.builds(lambda name, rest: f"{name}:{rest}", NAMES, st.text(alphabet="headsblock=:0123456789,-al"))
)
def test_any_notation_is_an_edit_or_a_sentence(text: str) -> None:
    one_sentence(lambda: planned_edit(edit_of_text(text)))


INDICES = st.sets(st.integers(0, 300), min_size=1).map(sorted)


@given(
    INDICES, INDICES | st.just("all"), INDICES | st.sampled_from(["cls", "image"]), st.sampled_from(["zero", "means"])
)
def test_text_of_an_edit_reads_back(heads: Any, blocks: Any, tokens: Any, to: str) -> None:
    planned = planned_edit({"edit": "AblateHeads", "heads": heads, "blocks": blocks, "tokens": tokens, "to": to})
    assert planned_edit(edit_of_text(planned.text)) == planned
    assert planned.options["heads"] == tuple(heads)
