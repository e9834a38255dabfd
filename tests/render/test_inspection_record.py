"""The inspection record: its form, and its numbers against a slow twin of the model that knows nothing of classlens."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import classlens
from classlens.render.class_record import shown_record
from classlens.render.inspection_record import inspection
from tests import literal, zoo

SITES = ["embed", "attn_out", "resid_mid", "mlp_out", "resid_post"]
VARIANTS = ["cls_registers", "cls_post_norm", "cls_not_square", "avg", "avg_includes_prefix", "avg_two_norms"]
Array = NDArray[Any]


def assert_form(record: dict[str, Any], *, in_file: bool = False) -> None:
    """Every key of the record and no other, with the sizes that the model gives; all of it is JSON.

    The file has no attention, which is packed for the page alone.
    """
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == ["classlens", "model", "class_names", "sites", "top_k", "edits", "images"]
    assert record["classlens"] == classlens.__version__
    model = record["model"]
    wanted = {"name", "blocks", "heads", "num_classes", "problem_type", "pooling", "prefix", "queries", "query", "grid"}
    wanted |= {"input_size", "checks"}
    assert set(model) == wanted
    assert set(model["checks"]) == {"law1", "law2"}
    assert 0 <= model["checks"]["law1"] < 1e-6
    assert 0 <= model["checks"]["law2"] < 1e-4
    assert record["sites"] == SITES
    assert record["top_k"] == min(5, model["num_classes"])
    rows, columns = model["grid"]
    tokens = len(model["prefix"]) + rows * columns
    used: set[int] = set()
    for image in record["images"]:
        assert ("attention" in image) != in_file
        _assert_image(image, model, record["top_k"], tokens)
        used |= {one["target"]["index"] for one in (image, *image["others"])}
        used |= {one["index"] for one in image["predictions"]}
        used |= {int(index) for index in np.unique(image["trajectory"]["top"])}
        used |= {int(index) for site in SITES for index in np.ravel(image["tokens"][site]["top"])}
    assert set(record["class_names"]) == {str(index) for index in used}


def _assert_image(image: dict[str, Any], model: dict[str, Any], top_k: int, tokens: int) -> None:
    wanted = {"target", "tokens", "blocks", "margin", "explanations", "attribution", "largest"}
    assert set(image) - {"attention"} == wanted | {
        "name",
        "label",
        "against",
        "predictions",
        "norms",
        "trajectory",
        "others",
    }
    assert all(set(one) == wanted and set(one["target"]) == {"index", "name"} for one in image["others"])
    assert all(set(facts) == {"rank"} for one in image["others"] for facts in one["tokens"].values())
    shown = [one["target"]["index"] for one in (image, *image["others"])]
    assert len(set(shown)) == len(shown)
    assert {one["index"] for one in image["predictions"]} <= set(shown)
    assert set(image["target"]) == {"index", "name", "chosen"}
    assert image["target"]["chosen"] in ("predicted", "given")
    assert len(image["predictions"]) == top_k
    assert all(set(one) == {"index", "name", "logit", "probability"} for one in image["predictions"])
    assert list(image["tokens"]) == SITES
    for site, found in image["tokens"].items():
        shape = (1 if site == "embed" else model["blocks"], tokens)
        assert set(found) == {"rank", "top", "top_logit"}
        assert np.shape(found["rank"]) == shape
        assert np.shape(found["top"]) == np.shape(found["top_logit"]) == (*shape, top_k)
        assert np.asarray(found["rank"]).dtype.kind == np.asarray(found["top"]).dtype.kind == "i"
    assert [row["block"] for row in image["blocks"]] == list(range(model["blocks"]))
    assert all(set(row) == {"block", "cls_rank", "identifiable"} for row in image["blocks"])
    assert set(image["trajectory"]) == {"top", "probability"}
    assert np.shape(image["trajectory"]["top"]) == (model["blocks"] + 1, top_k)
    assert np.shape(image["trajectory"]["probability"]) == (model["blocks"] + 1, top_k)
    assert np.shape(image["margin"]) == (model["blocks"] + 1,)
    image_tokens = tokens - len(model["prefix"])
    assert list(image["explanations"]) == ["log_odds", "class_gradient"]
    for name, maps in image["explanations"].items():
        assert set(maps) == {"label", "loss", "weight", "values"}
        assert maps["loss"] == {"log_odds": None, "class_gradient": "cross_entropy"}[name]
        assert np.shape(maps["values"]) == (model["blocks"], model["heads"], image_tokens)
    attribution = image["attribution"]
    assert set(attribution) == {"logit", "embed", "attention", "mlp", "bias", "image_tokens"}
    assert np.shape(attribution["attention"]) == (model["blocks"], model["heads"])
    assert np.shape(attribution["mlp"]) == (model["blocks"],)
    assert np.shape(attribution["image_tokens"]) == (model["blocks"], image_tokens)
    assert set(image["largest"]) == {"block", "sublayer", "value"}


def assert_numbers(
    image: dict[str, Any], model: Any, pixels: Tensor, *, pooled: tuple[int, ...], prefix: tuple[str, ...]
) -> None:
    """One image of a record against timm's own modules in float64, autograd and loops; ``pixels`` hold one image."""
    with torch.no_grad():
        logits = model(pixels)[0]
    target = image["target"]["index"]
    wanted = torch.tensor([target])

    probability = logits.softmax(dim=0)
    for one, index in zip(image["predictions"], logits.argsort(descending=True).tolist(), strict=False):
        assert one["index"] == index
        assert one["logit"] == pytest.approx(float(logits[index]), abs=1e-4)
        assert one["probability"] == pytest.approx(float(probability[index]), abs=1e-5)

    all_states = literal.states(model, pixels)
    for site, states in all_states.items():
        if site != "resid_pre":
            _assert_tokens(image["tokens"][site], model, states, target)
    for site, found in image["norms"].items():
        lengths = torch.stack([state[0].norm(dim=-1) for state in all_states[site]])
        np.testing.assert_allclose(found["norm"], lengths, atol=2e-5 * float(lengths.max()))
        among = lengths[:, len(prefix) :]
        median = among.median(dim=1, keepdim=True).values
        assert np.shape(found["outlier"]) == lengths.shape
        assert not (np.array(found["outlier"])[:, len(prefix) :] & (among <= median).numpy()).any()
    _assert_decisions(image, model, [*all_states["embed"], *all_states["resid_post"]], target)
    ranks = np.array(image["tokens"]["resid_post"]["rank"])
    on_image = slice(len(prefix), None)
    for row, rank in zip(image["blocks"], ranks, strict=True):
        assert row["cls_rank"] == (rank[prefix.index("cls")] if "cls" in prefix else None)
        assert row["identifiable"] == pytest.approx(np.mean(rank[on_image] == 0))

    gradient = literal.attention_gradient(
        model, pixels, wanted, loss="cross_entropy", pooled=pooled, image_tokens=on_image
    )[0].numpy()
    values = np.array(image["explanations"]["class_gradient"]["values"])
    np.testing.assert_allclose(values, gradient, atol=2e-5 * float(np.abs(gradient).max()))
    twin = literal.attribution(model, pixels, wanted, pooled=pooled)
    odds = twin["attention_token"]
    for category, probability in enumerate(
        (logits.masked_fill(wanted_only(target, logits), -torch.inf)).softmax(dim=0)
    ):
        other = literal.attribution(model, pixels, torch.tensor([category]), pooled=pooled)["attention_token"]
        odds = odds - probability * other
    size = float(twin["attention_token"].abs().max())
    np.testing.assert_allclose(
        image["explanations"]["log_odds"]["values"], odds[0, :, :, on_image], atol=2e-5 * max(1.0, size)
    )
    assert image["explanations"]["log_odds"]["weight"] == pytest.approx(1 - float(logits.softmax(0)[target]), rel=1e-3)
    found = image["attribution"]
    scale = max(1.0, float(twin["attention_token"].abs().max()))
    by_head = twin["attention_token"].sum(dim=-1)[0].numpy()
    np.testing.assert_allclose(found["attention"], by_head, atol=2e-5 * scale)
    np.testing.assert_allclose(found["mlp"], twin["mlp"][0], atol=2e-5 * scale)
    on_tokens = twin["attention_token"].sum(dim=2)[0, :, on_image]
    np.testing.assert_allclose(found["image_tokens"], on_tokens, atol=2e-5 * scale)
    assert found["embed"] == pytest.approx(float(twin["embed"][0]), abs=2e-5 * scale)
    assert found["bias"] == pytest.approx(float(twin["bias"][0]), abs=1e-4 * scale)
    assert found["logit"] == pytest.approx(float(logits[target]), abs=1e-4)
    total = found["embed"] + np.sum(found["attention"]) + np.sum(found["mlp"]) + found["bias"]
    assert total == pytest.approx(found["logit"], abs=1e-3)

    sublayers = {"attention": by_head.sum(axis=1), "mlp": twin["mlp"][0].numpy()}
    block, sublayer = image["largest"]["block"], image["largest"]["sublayer"]
    assert image["largest"]["value"] == pytest.approx(max(part.max() for part in sublayers.values()), abs=2e-5 * scale)
    assert image["largest"]["value"] == pytest.approx(sublayers[sublayer][block], abs=2e-5 * scale)


def wanted_only(target: int, logits: Tensor) -> Tensor:
    return torch.arange(len(logits)) == target


def _assert_tokens(found: dict[str, Any], model: Any, states: list[Tensor], target: int) -> None:
    with torch.no_grad():
        logits = torch.stack([literal.class_logits(model, state)[0] for state in states]).numpy()
    ahead = logits - logits[..., target, None]
    # Where another class comes within rounding of the class of interest, its rank is rounding's to decide.
    close = (np.abs(np.delete(ahead, target, axis=-1)) < 1e-4).any(axis=-1)
    assert close.mean() < 0.02
    np.testing.assert_array_equal(np.array(found["rank"])[~close], (ahead > 0).sum(axis=-1)[~close])
    top = np.array(found["top"])
    at_top = np.take_along_axis(logits, top, axis=-1)
    best = -np.sort(-logits, axis=-1)[..., : top.shape[-1]]
    np.testing.assert_allclose(at_top, best, atol=1e-4)  # the best classes, in order
    assert all(len(set(classes)) == top.shape[-1] for classes in top.reshape(-1, top.shape[-1]).tolist())
    np.testing.assert_allclose(found["top_logit"], best, atol=6e-4)  # written with three digits


def _assert_decisions(image: dict[str, Any], model: Any, states: list[Tensor], target: int) -> None:
    """Against the model's own head on the states of every depth."""
    with torch.no_grad():
        logits = torch.stack([model.forward_head(model.norm(state))[0] for state in states])
    probability = logits.softmax(dim=-1)
    best = probability.sort(dim=-1, descending=True).values[:, : len(image["trajectory"]["top"][0])]
    shown = image["trajectory"]["probability"]
    np.testing.assert_allclose(shown, best, atol=1e-5)
    np.testing.assert_allclose(shown, probability.gather(1, torch.tensor(image["trajectory"]["top"])), atol=1e-5)
    others = logits.index_fill(1, torch.tensor([target]), -torch.inf).amax(dim=-1)
    np.testing.assert_allclose(image["margin"], logits[:, target] - others, atol=1e-4)


def traced(name: str, pixels: Tensor, target: Any = "predicted", *, at_once: int = 2) -> dict[str, Any]:
    lens = classlens.load(zoo.build(name, torch.float32), class_names=[f"name {i}" for i in range(zoo.CLASSES)])
    traces = (lens.trace(part) for part in pixels.float().split(at_once))
    return inspection(lens, traces, target, version=classlens.__version__)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_number_against_the_slow_twin(name: str) -> None:
    variant = zoo.VARIANTS[name]
    pixels = zoo.pixels(name, 2)
    record = traced(name, pixels, 4)
    assert_form(record)
    model = record["model"]
    assert model["prefix"] == list(variant.prefix)
    assert model["grid"] == list(variant.grid)
    assert model["input_size"] == list(variant.size)
    assert model["pooling"] == ("cls" if variant.pooled == (0,) else "avg")
    assert (model["blocks"], model["heads"], model["num_classes"]) == (3, 3, zoo.CLASSES)
    twin = zoo.build(name)
    for number, image in enumerate(record["images"]):
        assert image["target"] == {"index": 4, "name": "name 4", "chosen": "given"}
        assert_numbers(image, twin, pixels[number : number + 1], pooled=variant.pooled, prefix=variant.prefix)


def test_the_grid_is_that_of_the_images() -> None:
    record = traced("cls_dynamic", zoo.pixels("cls_dynamic", 1))
    assert record["model"]["grid"] == [2, 4]
    assert_form(record)


def test_predicted_is_the_class_on_top_of_each_image() -> None:
    pixels = zoo.pixels("cls", 4)
    with torch.no_grad():
        best = zoo.build("cls")(pixels).argmax(dim=1).tolist()
    assert len(set(best)) > 1, "several classes are predicted"
    record = traced("cls", pixels)
    assert [image["target"] for image in record["images"]] == [
        {"index": index, "name": f"name {index}", "chosen": "predicted"} for index in best
    ]


def test_a_class_may_be_given_by_name() -> None:
    record = traced("avg", zoo.pixels("avg", 1), "name 7")
    assert record["images"][0]["target"] == {"index": 7, "name": "name 7", "chosen": "given"}


def test_images_come_in_order_however_they_are_split() -> None:
    pixels = zoo.pixels("cls", 5)
    one, many = traced("cls", pixels, at_once=1), traced("cls", pixels, at_once=5)
    assert len(one["images"]) == len(many["images"]) == 5
    for first, second in zip(one["images"], many["images"], strict=True):
        assert first["target"] == second["target"]
        for site in SITES:
            assert first["tokens"][site]["rank"] == second["tokens"][site]["rank"]
        for name, maps in first["explanations"].items():
            np.testing.assert_allclose(maps["values"], second["explanations"][name]["values"], atol=1e-5)
    assert one["class_names"] == many["class_names"]


def test_fewer_than_five_classes() -> None:
    model = zoo.build("cls", torch.float32)
    model.head = torch.nn.Linear(24, 3)
    lens = classlens.load(model)
    record = inspection(lens, [lens.trace(zoo.pixels("cls", 1).float())], version=classlens.__version__)
    assert record["top_k"] == 3
    assert_form(record)


def test_names_of_the_classes_that_are_used() -> None:
    record = traced("cls", zoo.pixels("cls", 1), 2)
    assert all(name == f"name {index}" for index, name in record["class_names"].items())
    assert record["class_names"]["2"] == "name 2"


def test_values_that_are_rounded_keep_six_digits_of_the_largest() -> None:
    """A megabyte less for a large model, and no visible difference."""
    record = traced("cls", zoo.pixels("cls", 1), 2)
    values = np.array(record["images"][0]["explanations"]["log_odds"]["values"])
    digits = 6 - int(np.floor(np.log10(np.abs(values).max())))
    assert np.array_equal(values, np.round(values, digits))


def test_images_of_one_name_are_told_apart_in_whatever_batch_they_come() -> None:
    lens = classlens.load(zoo.build("cls"), class_names=[f"name {number}" for number in range(zoo.CLASSES)])
    traces = [lens.trace(zoo.pixels("cls", images)) for images in (2, 2, 1)]
    record = inspection(lens, traces, 2, version="0")
    names = ["image 0", "image 1", "image 0 (2)", "image 1 (2)", "image 0 (3)"]
    assert [image["name"] for image in record["images"]] == names


def test_a_class_rather_than_another() -> None:
    """Differences of the maps and parts of two classes are those of the library, also where one is all but certain."""
    lens = classlens.load(zoo.build("cls"))
    with torch.no_grad():
        lens.view.module.head.weight.mul_(4)
    trace = lens.trace(zoo.pixels("cls", 2))
    assert float(trace.recording.logits.softmax(dim=1).max()) > 1 - 1e-4
    record = inspection(lens, [trace], "predicted", 3, version="0")
    for number, image in enumerate(record["images"]):
        assert image["against"] == {"index": 3, "name": "class 3"}
        shown = shown_record(image)
        for name in ("log_odds", "class_gradient"):
            expected = trace.explain("predicted", method=name, against=3)[number].values
            size = float(np.abs(expected).max())
            np.testing.assert_allclose(shown["explanations"][name]["values"], expected, atol=1e-5 * size)
        parts, one, other = shown["attribution"], trace.attribution(), trace.attribution(3)
        for part in ("logit", "embed", "attention", "mlp", "bias"):
            np.testing.assert_allclose(parts[part], (one[part] - other[part])[number], atol=1e-9)
        total = parts["embed"] + np.sum(parts["attention"]) + np.sum(parts["mlp"]) + parts["bias"]
        assert total == pytest.approx(parts["logit"], abs=1e-8)
    predicted = int(trace.predictions[0])
    same = inspection(lens, [trace], "predicted", predicted, version="0")["images"][0]
    assert same["against"] is None, "the prediction is the rival itself"


def test_labels_are_base_names_with_folders_where_needed() -> None:
    lens = classlens.load(zoo.build("cls"))
    trace = lens.trace(zoo.pixels("cls", 3))
    trace.names[:] = ["/data/a/cat.png", "/data/b/cat.png", "/data/dog.png"]
    record = inspection(lens, [trace], version="0")
    assert [image["label"] for image in record["images"]] == ["a/cat.png", "b/cat.png", "dog.png"]
    assert [image["name"] for image in record["images"]] == trace.names


@pytest.mark.parametrize("multi_label", [True, None])
def test_outputs_that_are_no_classes(multi_label: bool | None) -> None:
    """Logits in the place of ranks, probabilities by sigmoid or none, and maps of each output's own logit."""
    model = zoo.build("cls")
    model.head = torch.nn.Linear(24, 3 if multi_label else 1).double()
    lens = classlens.load(model, multi_label=multi_label)
    trace = lens.trace(zoo.pixels("cls", 1))
    record = inspection(lens, [trace], 0, version="0")
    (image,) = record["images"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["model"]["problem_type"] == ("multi_label_classification" if multi_label else "regression")
    logits = trace.logits("resid_post")[0, :, :, 0]
    np.testing.assert_allclose(image["tokens"]["resid_post"]["logit"], logits, atol=6e-4)
    assert [row["cls_logit"] for row in image["blocks"]] == pytest.approx(logits[:, 0].values.tolist())
    for guess in image["predictions"]:
        sigmoid = 1 / (1 + np.exp(-guess["logit"]))
        assert guess["probability"] == (pytest.approx(sigmoid) if multi_label else None)
    assert list(image["explanations"]) == ["log_odds" if multi_label else "logit_attribution", "class_gradient"]
    assert image["explanations"]["class_gradient"]["loss"] == "logit"
    for maps in image["explanations"].values():
        assert maps["weight"] == 1
        assert np.abs(maps["values"]).max() > 1e-3
