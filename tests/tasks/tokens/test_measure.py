"""What a store says of images, against the lens's own results and plain definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import classlens
from classlens import ClasslensError, KeepTokens, Lens, NoCls, SelfOnly, measure
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.models.builtin.cifar10 import CLASS_NAMES
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.data.pictures import folder, groups, imagenet_s, picture

MODEL = "builtin:cifar10"
ALL = ("clean", "random_init", "self_only", "no_cls")


@pytest.fixture(scope="module")
def lens() -> Lens:
    return classlens.load(MODEL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 70)


@pytest.fixture(scope="module")
def store(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "run.zarr"
    seen: list[Progress] = []
    outcome = measure(MODEL, data, out, conditions=ALL, memories=True, report=seen.append)
    assert (outcome.images, outcome.before, outcome.skipped) == (70, 0, {})
    assert sorted({progress.done for progress in seen}) == [0, 16, 32, 48, 64, 70]
    # Every condition of a batch is a step.
    assert [progress.under_way for progress in seen[: len(ALL)]] == [16 * done / len(ALL) for done in range(len(ALL))]
    assert seen[-1].rate > 0
    return out


def paths(data: str) -> list[str]:
    root = data.removeprefix("folder:")
    return [f"{root}/{name}" for name in open_dataset(data).names]


def test_the_groups_and_their_labels(store: Path, data: str, lens: Lens) -> None:
    assert groups(store) == sorted([*ALL, "parameters"])
    clean = open_group(store, "clean")
    assert clean["image"].values.tolist() == list(open_dataset(data).names)
    assert clean["rank"].dims == ("image", "site", "block", "token")
    assert clean["site"].values.tolist() == ["attn_out", "resid_mid", "mlp_out", "resid_post"]
    assert clean["key_value_agreement"].dims == ("image", "by", "sublayer", "block", "token")
    assert clean["memory_match"].dims == ("image", "sublayer", "block", "token")
    assert clean["token_kind"].values.tolist() == ["cls", *["image"] * 64]
    assert clean["row"].values.tolist() == [-1, *(number // 8 for number in range(64))]
    assert clean["class_name"].values.tolist() == list(CLASS_NAMES)
    types = {"rank": "int16", "top1": "int16", "embed_rank": "int16", "logit": "float32", "memory_match": "int8"}
    assert {name: str(clean[name].dtype) for name in types} == types
    assert clean.attrs["model"] == MODEL
    assert clean.attrs["batch_size"] == 16
    assert (clean["measured"] == 1).all()


def test_facts_are_those_of_the_lens(store: Path, data: str, lens: Lens) -> None:
    clean = open_group(store, "clean").load()
    label = [CLASS_NAMES.index(name.partition("/")[0]) for name in clean["image"].values]
    assert clean["label"].values.tolist() == clean["target"].values.tolist() == label
    # The same batches: 64 images in fours, then the rest.
    every = tuple(clean["site"].values.tolist())
    for part in (slice(0, 16), slice(48, 64), slice(64, 70)):
        own = lens.facts(paths(data)[part], every, label[part])
        embed = lens.facts(paths(data)[part], "embed", label[part])
        for name in ("rank", "logit", "top1"):
            np.testing.assert_array_equal(clean[name].values[part], own[name].values)
            np.testing.assert_array_equal(clean[f"embed_{name}"].values[part], embed[name].values[:, 0, 0])


def test_predictions_are_the_model_s(store: Path, data: str, lens: Lens) -> None:
    clean = open_group(store, "clean").load()
    trace = lens.trace(paths(data))
    own = trace.recording.logits.argmax(dim=1).numpy()
    np.testing.assert_array_equal(clean["prediction"], own)
    logits = trace.recording.logits.double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clean["confidence"], probabilities.max(axis=1), rtol=1e-5)  # float32
    np.testing.assert_array_equal(clean["correct"], own == clean["label"])


def test_edits_are_those_of_the_lens(store: Path, data: str, lens: Lens) -> None:
    for name, edit in (("self_only", SelfOnly()), ("no_cls", NoCls())):
        found = open_group(store, name).load()
        with lens.edit(edit):
            own = lens.facts(paths(data)[:16], "resid_post", found["label"].values[:16])
        np.testing.assert_array_equal(found["rank"].sel(site="resid_post").values[:16], own["rank"].values[:, 0])
    assert (open_group(store, "self_only")["rank"].values != open_group(store, "clean")["rank"].values).any()


def test_the_random_twin_is_the_library_s_own_from_the_seed(store: Path, data: str) -> None:
    twin = open_group(store, "random_init").load()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = classlens.load(MODEL, pretrained=False)
    facts = own.facts(paths(data)[:16], "mlp_out", twin["label"].values[:16])
    np.testing.assert_array_equal(twin["rank"].sel(site="mlp_out").values[:16], facts["rank"].values[:, 0])


def memory_scores(lens: Lens, block: int, sublayer: str) -> Tensor:
    """``E · value`` for all classes and memories, in float64, from the modules themselves."""
    module: Any = lens.view.module
    layer = module.blocks[block]
    weight = (layer.attn.proj if sublayer == "attn" else layer.mlp.fc2).weight
    scores: Tensor = module.head.weight.double() @ weight.double()
    return scores.detach()


def test_memories_are_counted_as_the_definitions_say(store: Path, data: str, lens: Lens) -> None:
    """Sorted, one token after another: a slow twin."""
    clean = open_group(store, "clean").load()
    module: Any = lens.view.module
    block, images = 4, paths(data)[:16]
    seen: dict[str, Tensor] = {}
    layer = module.blocks[block]
    hooks = [
        layer.attn.proj.register_forward_pre_hook(lambda _, args: seen.__setitem__("attn", args[0])),
        layer.mlp.fc2.register_forward_pre_hook(lambda _, args: seen.__setitem__("mlp", args[0])),
    ]
    try:
        lens.trace(images)
    finally:
        for hook in hooks:
            hook.remove()
    for sublayer in ("attn", "mlp"):
        scores = memory_scores(lens, block, sublayer)
        for image in (0, 3, 15):
            target = int(clean["label"][image])
            best = set(scores[target].argsort(descending=True)[:5].tolist())
            for token in (0, 1, 40):
                used = seen[sublayer][image, token].argsort(descending=True)[:5].tolist()
                found = clean.sel(sublayer=sublayer, block=block).isel(image=image, token=token)
                agrees = found["key_value_agreement"]
                assert bool(agrees.sel(by="class")) == bool(best & set(used))
                tops = [set(scores[:, unit].argsort(descending=True)[:5].tolist()) for unit in used]
                assert bool(agrees.sel(by="value")) == any(target in top for top in tops)
                top1 = int(found["top1"].sel(site=f"{sublayer}_out"))
                assert bool(found["memory_match"]) == any(int(scores[:, unit].argmax()) == top1 for unit in used)


def test_parameters(store: Path, lens: Lens) -> None:
    found = open_group(store, "parameters").load()
    scores = memory_scores(lens, 2, "mlp")
    tops = found["mlp_top_classes"].sel(block=2).values
    assert tops.shape == (512, 5)
    np.testing.assert_array_equal(tops[:, 0], scores.argmax(dim=0))
    np.testing.assert_array_equal(np.sort(tops, axis=1), np.sort(scores.topk(5, dim=0).indices.T.numpy(), axis=1))
    module: Any = lens.view.module
    unit = torch.nn.functional.normalize
    cosines = unit(module.head.weight.double(), dim=1) @ unit(module.blocks[2].mlp.fc2.weight.double(), dim=0)
    own = found["class_value_agreement"].sel(weights="model", sublayer="mlp", block=2)
    np.testing.assert_allclose(own, cosines.detach().max(dim=1).values, atol=1e-6)
    assert found["class_value_agreement"].sizes["weights"] == 2
    assert found["attn_top_classes"].dims == ("block", "channel", "place")
    assert set(found.dims) <= set(found.coords), "every number is labeled"


WNIDS = ("n01440764", "n02123045")


def with_masks(tmp_path: Path, model: str = "cls") -> tuple[Lens, str]:
    module = zoo.build(model, torch.float32)
    names = ["goldfish", "tench, Tinca tinca", "tabby, tabby cat", *(f"other {number}" for number in range(8))]
    transform = paper_transform((16, 16))
    data = imagenet_s(tmp_path / "data", WNIDS, 3)
    lens = classlens.load(module, class_names=names, transform=transform)
    return lens, data


@pytest.mark.parametrize("model", ["cls", "avg_excludes_cls", "avg"])
def test_tokens_that_are_removed(tmp_path: Path, model: str) -> None:
    lens, data = with_masks(tmp_path, model)
    out = tmp_path / "run.zarr"
    conditions = ("clean", "context_removed", "class_removed")
    measure(lens, data, out, conditions=conditions, memories=True)
    prefix = len(lens.view.prefix)
    shows = np.array([1, 0, 1, 0])  # the left half of a grid of 2 × 2
    pixels = torch.stack([lens.preprocessing(open_dataset(data).picture(index), "") for index in range(6)])
    for name, kept in (("context_removed", shows), ("class_removed", 1 - shows)):
        found = open_group(out, name).load()
        np.testing.assert_array_equal(found["class_token"].values[:, prefix:], np.tile(shows, (6, 1)))
        assert (found["class_token"].values[:, :prefix] == -1).all()
        whole = np.concatenate([np.ones(prefix, dtype=int), kept])
        np.testing.assert_array_equal(found["kept"], np.tile(whole, (6, 1)))
        gone = whole == 0
        assert (found["rank"].values[..., gone] == -1).all()
        assert np.isnan(found["logit"].values[..., gone]).all()
        assert (found["key_value_agreement"].values[..., gone] == -1).all()
        assert (found["embed_top1"].values[..., gone] == -1).all()
        assert (found["rank"].values[..., ~gone] >= 0).all()
        with lens.edit(KeepTokens(torch.as_tensor(whole == 1))):
            own = lens.facts(pixels, "resid_post", found["label"].values)
            predicted = lens.trace(pixels).recording.logits.argmax(dim=1)
        np.testing.assert_array_equal(
            found["rank"].sel(site="resid_post").values[..., ~gone], own["rank"].values[:, 0][..., ~gone]
        )
        np.testing.assert_array_equal(found["prediction"], predicted)


def test_an_image_of_which_nothing_is_left(tmp_path: Path) -> None:
    """Without [CLS] there is then nothing to pool; the image is blank, the others are not."""
    lens, data = with_masks(tmp_path, "avg")
    root = Path(data.removeprefix("imagenet-s:")) / "ImageNetS919/validation-segmentation" / WNIDS[0]
    first, second, _ = sorted(root.iterdir())
    Image.new("RGB", (48, 40)).save(first)  # the class is nowhere
    second.unlink()
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "context_removed", "class_removed"))
    removed, kept = (open_group(tmp_path / "run.zarr", name).load() for name in ("context_removed", "class_removed"))
    assert (removed["rank"].values[0] == -1).all()
    assert removed["prediction"].values[0] == -1
    assert (kept["rank"].values[0] >= 0).all(), "all of it is context"
    for found in (removed, kept):
        assert (found["rank"].values[1] == -1).all(), "without a mask nothing is known"
        assert (found["class_token"].values[1] == -1).all()
        assert (found["rank"].values[2] >= 0).any()
        assert (found["measured"] == 1).all()


def test_images_without_labels_are_measured_for_what_is_predicted(tmp_path: Path, lens: Lens) -> None:
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    measure(lens, f"folder:{tmp_path}", tmp_path / "out.zarr", conditions=("clean", "no_cls"))
    clean = open_group(tmp_path / "out.zarr", "clean").load()
    own = lens.trace([tmp_path / f"{number}.png" for number in range(3)])
    assert clean["label"].values.tolist() == clean["correct"].values.tolist() == [-1] * 3
    np.testing.assert_array_equal(clean["target"], own.recording.logits.argmax(dim=1))
    np.testing.assert_array_equal(clean["target"], open_group(tmp_path / "out.zarr", "no_cls")["target"])
    np.testing.assert_array_equal(clean["rank"].sel(site="resid_post").values[:, -1, 0], 0)


def test_some_sites(tmp_path: Path, data: str, lens: Lens, store: Path) -> None:
    measure(lens, data, tmp_path / "one.zarr", sites="resid_post", limit=5)
    found = open_group(tmp_path / "one.zarr", "clean").load()
    assert found["site"].values.tolist() == ["resid_post"]
    assert "embed_rank" not in found
    assert "key_value_agreement" not in found
    measure(lens, data, tmp_path / "two.zarr", sites=["embed"], limit=5)
    assert "rank" not in open_group(tmp_path / "two.zarr", "clean").variables


def test_many_classes_take_wider_integers(tmp_path: Path) -> None:
    module: Any = zoo.build("cls", torch.float32)
    module.head = torch.nn.Linear(24, 33_000)
    lens = classlens.load(module, transform=lambda image: torch.zeros(3, 16, 16))
    data = folder(tmp_path / "data", 2, classes=["32999", "7"])
    measure(lens, data, tmp_path / "out.zarr", memories=True)
    found = open_group(tmp_path / "out.zarr", "clean").load()
    assert found["rank"].dtype == found["top1"].dtype == found["label"].dtype == np.int32
    assert sorted(found["label"].values.tolist()) == [7, 32_999]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conditions": ("clean", "shuffled")}, "condition 'shuffled' is not known"),
        ({"conditions": ()}, "no conditions were given"),
        ({"conditions": "context_removed"}, "needs masks"),
        ({"sites": ["embedding"]}, "site 'embedding' cannot be measured"),
        ({"sites": ["resid_post"], "memories": True}, "add both to sites"),
        ({"batch_size": 100}, "batch_size 100 cannot be used"),
        ({"batch_size": 0}, "batch_size 0 cannot be used"),
        ({"engine": "spark"}, "engine 'spark' is not known"),
        ({"limit": 0}, "limit 0 cannot be used"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes(tmp_path: Path, data: str, lens: Lens, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ClasslensError) as error:
        measure(lens, data, tmp_path / "out.zarr", **changes)
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_memories_need_their_coefficients(tmp_path: Path, data: str) -> None:
    """A model of one's own may be described without them: an error then, not a store without agreement."""
    lens = classlens.load(MODEL)
    del lens.view.blocks[3].points["mlp_coefficients"]
    with pytest.raises(ClasslensError, match="is described without its memory coefficients"):
        measure(lens, data, tmp_path / "out.zarr", memories=True)
    measure(lens, data, tmp_path / "out.zarr", limit=3)


def test_conditions_that_a_model_does_not_have(tmp_path: Path, data: str) -> None:
    lens = classlens.load(zoo.build("avg", torch.float32), transform=lambda image: torch.zeros(3, 16, 16))
    data = folder(tmp_path / "data", 3, classes=["0", "1", "2"])
    with pytest.raises(ClasslensError, match="needs a \\[CLS\\] token"):
        measure(lens, data, tmp_path / "out.zarr", conditions="no_cls")
    with pytest.raises(ClasslensError, match="has no random twin"):
        measure(lens, data, tmp_path / "out.zarr", conditions="random_init")
    measure(lens, data, tmp_path / "out.zarr", memories=True)
    assert open_group(tmp_path / "out.zarr", "parameters")["weights"].values.tolist() == ["model"]
