"""Forms of edits: every edit of the registry, and one that is added, without a change of the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from torch import Tensor

import classlens
from classlens import Edit, EditStep, ModelView
from classlens.forward.edits.registry import EDITS
from classlens.forward.edits.selection import Indices
from classlens.render.edit_record.fields import edit_options
from classlens.render.edit_record.forms import CONTROLS, edit_forms
from classlens.render.edit_record.plan import plan_of
from classlens.render.edit_record.record import edit_record
from tests import zoo
from tests.forward.edits.by_hand import by_hand, model, pixels


@dataclass(frozen=True, eq=False)
class ScaleMlp(Edit):
    """The outputs of MLPs are multiplied."""

    label, about = "scale MLP", "the outputs of MLPs are multiplied by a factor"

    factor: float
    blocks: Indices = "all"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        assert isinstance(self.blocks, list)
        for block in self.blocks:
            yield EditStep("mlp_out", block, lambda x, _: self.factor * x)


@dataclass(frozen=True, eq=False)
class AddTensor(ScaleMlp):
    """An option that plain values cannot give."""

    what: Tensor | None = None


@pytest.fixture
def added() -> Iterator[None]:
    EDITS.register("ScaleMlp", ScaleMlp)
    EDITS.register("AddTensor", AddTensor)
    yield
    for name in ("ScaleMlp", "AddTensor"):
        EDITS.unregister(name)
    edit_options.cache_clear()


def test_every_edit_has_a_form_and_every_control_an_edit() -> None:
    lens = classlens.load(zoo.build("cls"))
    assert [form["name"] for form in edit_forms(lens.view)] == list(EDITS)
    assert set(CONTROLS) <= set(EDITS)


def test_models_without_cls_cannot_hide_it() -> None:
    names = [form["name"] for form in edit_forms(classlens.load(zoo.build("avg")).view)]
    assert "NoCls" not in names
    assert "SelfOnly" in names


def test_added_edit_has_a_form_and_runs(added: None) -> None:
    built, x = model(), pixels(1)
    lens = classlens.load(built)
    forms = {form["name"]: form for form in edit_forms(lens.view)}
    assert forms["ScaleMlp"]["control"] == "form"
    assert [option["kind"] for option in forms["ScaleMlp"]["options"]] == ["number", "indices"]
    assert "AddTensor" not in forms
    plan = plan_of({"edits": [{"edit": "ScaleMlp", "factor": 0.25, "blocks": [1]}]})
    record = edit_record(lens, lens.trace(x), plan)
    expected = by_hand(built, x, mlp=lambda number, out: out * (0.25 if number == 1 else 1))[0]
    for row in record["classes"]:
        assert row["edited"]["logit"] == pytest.approx(float(expected[row["index"]]), abs=1e-9)
