"""Probes of a whole data set: what is trained against scikit-learn, what is measured against loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression, RidgeCV
from timm.models.vision_transformer import VisionTransformer

import classlens
from classlens import probe
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from classlens.tasks.probes.probe import STORE
from classlens.tasks.probes.ridge import RidgeSums
from classlens.tasks.probes.training import ALPHAS
from tests import literal, zoo
from tests.data.pictures import assert_same, folder, groups
from tests.refusals import refused
from tests.tasks.tiny import NAMES, SEEN, Data, data_in, labels_of, lens_of, rank_of, ridge_of, states_of

SITES = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
ALONE: dict[str, Any] = {"workers": 0}
BLOCKS, TOKENS, WIDTH, IMAGES = 3, 5, 24, 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def features(data: Data) -> literal.States:
    return states_of(lens_of(), data.train)


def stored(data_root: Path, kind: str = "probe") -> dict[tuple[str, int, int], tuple[Any, Any, Any]]:
    """Weight, bias and alpha of every token that was probed, as they stand on disk."""
    found = {}
    for path in (data_root / kind).glob("*.safetensors"):
        site, block, start, stop = path.stem.split("-")
        with safe_open(path, framework="np") as opened:
            weight, bias, alpha = (opened.get_tensor(name) for name in ("weight", "bias", "alpha"))
        assert weight.dtype == np.float32
        for number in range(len(weight)):
            key = (site, int(block), int(start) + number)
            assert key not in found
            found[key] = weight[number], bias[number], alpha[number]
            assert kind == "probe_pooled" or int(stop) - int(start) == len(weight)
    return found


def memory_for(probes: int, images: int = 16) -> int:
    """So much that this many probes fit with their features, and no more."""
    return probes * (RidgeSums.bytes_of(1, WIDTH, len(NAMES)) + 8 * WIDTH * images)


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every site and token in one pass."""
    out = tmp_path_factory.mktemp("probes") / "whole"
    seen: list[Progress] = []
    found = probe(lens_of(), *data, out, sites=SITES, report=seen.append, **ALONE)
    assert (found.trained, found.passes, found.condition) == ((4 * BLOCKS + 1) * TOKENS, 1, "probe")
    assert found.run.store == str(out / STORE)
    assert {one.images for one in seen} == {IMAGES + 9}
    done = [one.done for one in seen]
    assert done == sorted(done)
    assert done[-1] == IMAGES + 9
    assert {"training images", "measuring"} < {one.doing for one in seen}
    # Training images are behind when measuring begins, and no part of its rate.
    assert {one.before for one in seen if one.doing == "measuring"} == {IMAGES}
    return out


def test_weights_are_scikit_learn_s(whole: Path, data: Data, features: literal.States) -> None:
    found, label = stored(whole), labels_of(data.train)
    assert len(found) == (4 * BLOCKS + 1) * TOKENS
    for (site, block, token), (weight, bias, alpha) in found.items():
        ridge = ridge_of(features[site][block][:, token].numpy(), label)
        # The bound; weights of float32 and order 0.1 are rounded to 1e-8.
        np.testing.assert_allclose(weight.T, ridge.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, ridge.intercept_, rtol=0, atol=1e-5)
        assert alpha == 1.0
        # The tokens of [CLS] before the first block are the same in every image, and say nothing.
        assert (site, token) == ("embed", 0) or np.abs(ridge.coef_).max() > 1e-3


def assert_ranks(store: Path, condition: str, lens: classlens.Lens, data: Data, coefficients: Any) -> None:
    """Every rank, logit and top-1 class by loops; -1 and NaN where ``coefficients(site, block, token)`` is None."""
    group = open_group(store, condition).load()
    states, label = states_of(lens, data.test), labels_of(data.test)
    assert group["label"].values.tolist() == group["target"].values.tolist() == label
    read = 0
    for site in [*(str(one) for one in group["site"].values), *(["embed"] if "embed_rank" in group else [])]:
        for block in range(1 if site == "embed" else BLOCKS):
            for token in range(group.sizes["token"]):
                if site == "embed":
                    rank, top1, logit = (group[f"embed_{key}"].values[:, token] for key in ("rank", "top1", "logit"))
                else:
                    own = group.sel(site=site, block=block).isel(token=token)
                    rank, top1, logit = (own[key].values for key in ("rank", "top1", "logit"))
                ridge = coefficients(site, block, token)
                if ridge is None:
                    assert (rank == -1).all()
                    assert (top1 == -1).all()
                    assert np.isnan(logit).all()
                    continue
                scores = states[site][block][:, token].numpy() @ ridge.coef_.T + ridge.intercept_
                for image, row in enumerate(scores):
                    own = row[label[image]]
                    assert logit[image] == pytest.approx(own, abs=1e-4)
                    # Classes without an image have the same target everywhere and tie, but for rounding.
                    assert row[top1[image]] == pytest.approx(row.max(), abs=1e-5)
                    others = np.delete(row, label[image])
                    if np.abs(others - own).min() > 1e-4:
                        assert rank[image] == rank_of(row, label[image])[0]
                        read += 1
    assert read > 10


def test_what_is_measured(whole: Path, data: Data, features: literal.States) -> None:
    label = labels_of(data.train)

    def coefficients(site: str, block: int, token: int) -> Any:
        return ridge_of(features[site][block][:, token].numpy(), label)

    assert_ranks(whole / STORE, "probe", lens_of(), data, coefficients)
    clean, probed = (open_group(whole / STORE, name).load() for name in ("clean", "probe"))
    assert groups(whole / STORE) == ["clean", "probe"]
    for name in ("prediction", "correct", "label", "kept"):
        np.testing.assert_array_equal(clean[name], probed[name])
    assert (clean["rank"].values != probed["rank"].values).any()
    own = lens_of().facts(
        [str(Path(data.test.removeprefix("folder:")) / name) for name in clean["image"].values],
        ("attn_out", "resid_mid", "mlp_out", "resid_post"),
        labels_of(data.test),
    )
    np.testing.assert_array_equal(clean["rank"], own["rank"])


@pytest.mark.parametrize(("probes", "passes"), [(22, 3), (1, 65)])
def test_several_passes_train_the_same(whole: Path, data: Data, tmp_path: Path, probes: int, passes: int) -> None:
    found = probe(lens_of(), *data, tmp_path, sites=SITES, memory=memory_for(probes), **ALONE)
    assert found.passes == passes
    one, other = stored(whole), stored(tmp_path)
    assert one.keys() == other.keys()
    for key in one:
        # The same sums in groups of other images: float64, rounded to float32 at the end.
        np.testing.assert_allclose(one[key][0], other[key][0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one[key][1], other[key][1], rtol=1e-5, atol=1e-7)
    first, second = (open_group(out / STORE, "probe").load() for out in (whole, tmp_path))
    np.testing.assert_allclose(first["logit"], second["logit"], rtol=0, atol=1e-5)
    with pytest.raises(classlens.ClasslensError, match=r"memory of .* is too little"):
        probe(lens_of(), *data, tmp_path / "less", sites=SITES, memory=memory_for(1) - 1, **ALONE)


@pytest.mark.parametrize(
    ("tokens", "places"), [("all", range(7)), ("prefix", range(3)), ("image", range(3, 7)), ("cls", range(1))]
)
def test_some_tokens(data: Data, tmp_path: Path, tokens: Any, places: range) -> None:
    lens = lens_of("cls_registers")
    found = probe(lens, *data, tmp_path, sites="resid_post", tokens=tokens, alpha=0.5, **ALONE)
    assert found.trained == BLOCKS * len(places)
    states, label = states_of(lens, data.train)["resid_post"], labels_of(data.train)
    ridges = {
        (block, token): ridge_of(states[block][:, token].numpy(), label, 0.5)
        for block in range(BLOCKS)
        for token in places
    }
    weights = stored(tmp_path)
    assert {key[1:] for key in weights} == ridges.keys()
    for (_, block, token), (weight, _, alpha) in weights.items():
        np.testing.assert_allclose(weight.T, ridges[block, token].coef_, rtol=0, atol=1e-5)
        assert alpha == 0.5
    if len(places) < 7:
        assert_ranks(tmp_path / STORE, "probe", lens, data, lambda _, block, token: ridges.get((block, token)))


@pytest.mark.parametrize("memory", ["8GB", memory_for(1, 16 * 4)])
def test_one_probe_of_all_image_tokens(data: Data, tmp_path: Path, memory: Any) -> None:
    lens = lens_of()
    found = probe(lens, *data, tmp_path, sites=("attn_out", "resid_post"), kind="pooled", memory=memory, **ALONE)
    assert (found.trained, found.condition) == (2 * BLOCKS, "probe_pooled")
    assert found.passes == (1 if memory == "8GB" else 2 * BLOCKS)
    states, label = states_of(lens, data.train), labels_of(data.train)
    ridges = {}
    for (site, block, start), (weight, bias, _) in stored(tmp_path, "probe_pooled").items():
        rows = states[site][block][:, 1:].flatten(0, 1).numpy()
        ridges[site, block] = ridge_of(rows, np.repeat(label, 4).tolist())
        np.testing.assert_allclose(weight.T, ridges[site, block].coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, ridges[site, block].intercept_, rtol=0, atol=1e-5)
        assert start == 1
    assert len(ridges) == 2 * BLOCKS

    def coefficients(site: str, block: int, token: int) -> Any:
        return ridges[site, block] if token > 0 else None

    assert_ranks(tmp_path / STORE, "probe_pooled", lens, data, coefficients)
    refused(lambda: probe(lens, *data, tmp_path, kind="pooled", tokens="all", **ALONE), "not tokens 'all'")


@pytest.mark.parametrize("memory", ["8GB", 2 * memory_for(4)])
def test_alpha_by_leave_one_out(data: Data, features: literal.States, tmp_path: Path, memory: Any) -> None:
    found = probe(lens_of(), *data, tmp_path, sites="mlp_out", alpha="loo", memory=memory, **ALONE)
    assert found.passes == (2 if memory == "8GB" else 4)
    label, alphas = labels_of(data.train), set()
    signs = np.where(np.array(label)[:, None] == np.arange(len(NAMES)), 1.0, -1.0)
    for (_, block, token), (weight, bias, alpha) in stored(tmp_path).items():
        x = features["mlp_out"][block][:, token].numpy()
        chosen = RidgeCV(ALPHAS).fit(x, signs)
        assert alpha == chosen.alpha_
        np.testing.assert_allclose(weight.T, chosen.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, chosen.intercept_, rtol=0, atol=1e-5)
        alphas.add(float(alpha))
    assert len(alphas) > 1
    assert {float(one) for _, some in ProbeFolder(tmp_path / "probe").alphas() for one in some} == alphas


def test_alpha_of_pooled_probes_leaves_out_images(data: Data, tmp_path: Path) -> None:
    """Not rows: the tokens of an image know each other."""
    lens = lens_of()
    probe(lens, *data, tmp_path, sites="resid_post", kind="pooled", alpha="loo", **ALONE)
    states, label = states_of(lens, data.train)["resid_post"], np.array(labels_of(data.train))
    for (_, block, _), (_, _, alpha) in stored(tmp_path, "probe_pooled").items():
        x = states[block][:, 1:].numpy()
        errors = []
        for one in ALPHAS:
            total = 0.0
            for image in range(IMAGES):
                rest = np.arange(IMAGES) != image
                ridge = ridge_of(x[rest].reshape(-1, WIDTH), np.repeat(label[rest], 4).tolist(), one)
                wanted = np.where(np.arange(len(NAMES)) == label[image], 1.0, -1.0)
                total += float(((ridge.predict(x[image]) - wanted) ** 2).sum())
            errors.append(total)
        assert alpha == ALPHAS[errors.index(min(errors))]


def test_logistic_probes(data: Data, features: literal.States, tmp_path: Path) -> None:
    found = probe(lens_of(), *data, tmp_path, sites="resid_post", kind="logistic", tokens="cls", alpha=0.1, **ALONE)
    assert (found.trained, found.condition) == (BLOCKS, "probe_logistic")
    label = labels_of(data.train)
    for (_, block, token), (weight, bias, alpha) in stored(tmp_path, "probe_logistic").items():
        x = features["resid_post"][block][:, token].float().double().numpy()
        mean, scale = x.mean(axis=0), x.std(axis=0)
        fitted = LogisticRegression(C=10.0, max_iter=1000).fit((x - mean) / scale, label)
        own = x @ weight[:, : len(SEEN)] + bias[: len(SEEN)]
        # Where the optimizer stops is within 1e-4 of its gradient.
        np.testing.assert_allclose(own, fitted.decision_function((x - mean) / scale), rtol=0, atol=1e-4)
        assert (bias[len(SEEN) :] == -1e9).all()
        assert alpha == np.float32(0.1)
    probed = open_group(tmp_path / STORE, "probe_logistic").load()
    assert (probed["rank"].values[..., 1:] == -1).all()
    assert (probed["top1"].values[..., 0] < len(SEEN)).all()
    assert (probed["rank"].values[..., 0] < len(SEEN)).all()


def test_float32_models(data: Data, tmp_path: Path) -> None:
    """Against scikit-learn in float64 on the very float32 features that pass."""
    lens = lens_of("avg", torch.float32)
    probe(lens, *data, tmp_path, sites="resid_post", **ALONE)
    seen: list[torch.Tensor] = []
    pixels = torch.stack([lens.preprocessing(open_dataset(data.train).picture(image), "") for image in range(IMAGES)])
    module: Any = lens.view.module
    hook = module.blocks[1].register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        for some in pixels.split(16):
            module(some)
    hook.remove()
    x, label = torch.cat(seen).double().numpy(), labels_of(data.train)
    for (_, block, token), (weight, _, _) in stored(tmp_path).items():
        if block == 1:
            np.testing.assert_allclose(weight.T, ridge_of(x[:, token], label).coef_, rtol=0, atol=1e-5)


def test_images_without_a_label_or_that_cannot_be_read(data: Data, features: literal.States, tmp_path: Path) -> None:
    root = tmp_path / "images"
    spec = folder(root, IMAGES, SEEN)
    bad = root / "dog" / "0004.png"
    bad.write_bytes(b"no image")
    dataset = open_dataset(spec)
    labels = dataset.labels.copy()
    labels[[0, 7]] = -1
    unlabeled = replace(dataset, labels=labels)
    given: dict[str, Any] = {"sites": "resid_post", "tokens": "cls", **ALONE}
    refused(lambda: probe(lens_of(), unlabeled, data.test, tmp_path / "no", **given), str(bad), "--skip-bad")
    found = probe(lens_of(), unlabeled, data.test, tmp_path / "out", **given, skip_bad=True)
    assert found.trained == BLOCKS
    gone = [0, 7, list(dataset.names).index("dog/0004.png")]
    kept = [image for image in range(IMAGES) if image not in gone]
    label = labels_of(data.train)
    for (_, block, token), (weight, _, _) in stored(tmp_path / "out").items():
        x = features["resid_post"][block][kept, token].numpy()
        ridge = ridge_of(x, [label[image] for image in kept])
        np.testing.assert_allclose(weight.T, ridge.coef_, rtol=0, atol=1e-5)
    bare = replace(dataset, labels=np.full(IMAGES, -1))
    refused(lambda: probe(lens_of(), bare, data.test, tmp_path / "none", **given), "no labels")


def test_a_tuned_lens_beside(data: Data, tmp_path: Path) -> None:
    from classlens.lens.tuned_lens import TunedLens

    lens = lens_of()
    found = probe(
        lens, *data, tmp_path, sites="resid_post", tokens="cls", tuned_lens=TunedLens.identity(lens.view), **ALONE
    )
    assert groups(found.run.store) == ["clean", "probe", "tuned_lens"]
    clean, tuned = (open_group(found.run.store, name).load() for name in ("clean", "tuned_lens"))
    np.testing.assert_array_equal(clean["rank"], tuned["rank"])


def test_a_model_leaves_as_it_came(data: Data, tmp_path: Path) -> None:
    lens = lens_of()
    before = zoo.snapshot(lens.view.module)
    probe(lens, *data, tmp_path, sites="resid_post", **ALONE)
    assert zoo.snapshot(lens.view.module) == before


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"kind": "lasso"}, ("kind 'lasso'", "ridge, pooled, logistic")),
        ({"kind": "logistics"}, ("did you mean 'logistic'",)),
        ({"alpha": 0.0}, ("alpha 0.0", "above 0, or loo")),
        ({"alpha": -1}, ("alpha -1",)),
        ({"alpha": "small"}, ("alpha 'small'",)),
        ({"alpha": True}, ("alpha True",)),
        ({"alpha": float("nan")}, ("alpha nan",)),
        ({"alpha": "loo", "kind": "logistic"}, ("'loo' is for ridge probes",)),
        ({"memory": "some"}, ("memory 'some'",)),
        ({"memory": "1kB"}, ("memory of 0.0 MB is too little",)),
        ({"sites": "resid_pre"}, ("'resid_pre'",)),
        ({"tokens": "dist"}, ("'dist'",)),
        ({"test": "same"}, ("30 images", "both for training and test")),
        ({"train": "folder:/nowhere"}, ("is not a folder",)),
        ({"train_limit": 0}, ("limit is 0",)),
        ({"batch_size": 65}, ("batch size 65",)),
    ],
)
def test_what_cannot_be_asked_for(data: Data, tmp_path: Path, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    given: dict[str, Any] = {"train": data.train, "test": data.test, "sites": "resid_post", **ALONE, **changes}
    if given["test"] == "same":
        given["test"] = given["train"]
    refused(lambda: probe(lens_of(), out=tmp_path / "run", **given), *names)
    assert not (tmp_path / "run" / STORE).exists()


def test_a_file_in_the_place_of_the_folder(data: Data, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("dear")
    refused(lambda: probe(lens_of(), *data, tmp_path / "out", **ALONE), "is a file: expected a folder")
    assert (tmp_path / "out").read_text() == "dear"


def test_other_images_of_one_place_are_apart(data: Data, tmp_path: Path) -> None:
    """Training and test images may come from one folder, as long as none is in both."""
    every = open_dataset(data.train)
    found = probe(
        lens_of(),
        every.subset(np.arange(20)),
        every.subset(np.arange(20, 30)),
        tmp_path / "out",
        sites="resid_post",
        tokens="cls",
        **ALONE,
    )
    assert found.run.images == 10
    refused(
        lambda: probe(
            lens_of(), every.subset(np.arange(20)), every.subset(np.arange(19, 30)), tmp_path / "no", **ALONE
        ),
        "1 images",
        every.names[19],
    )


class Stopped(Exception):
    pass


FEW: dict[str, Any] = {"sites": ("attn_out", "resid_post"), "memory": memory_for(8), **ALONE}


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes") / "undisturbed"
    assert probe(lens_of(), *data, out, **FEW).passes == 4
    return out


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in (one / "probe").iterdir())
    assert names == sorted(path.name for path in (other / "probe").iterdir()), "nothing half-written is left"
    for name in names:
        assert (one / "probe" / name).read_bytes() == (other / "probe" / name).read_bytes(), name
    assert_same(one / STORE, other / STORE)


@pytest.mark.parametrize("moment", ["pass 1 of 4", "pass 3 of 4", "solving 2 of 2", "measuring"])
def test_stopped_and_gone_on_with(data: Data, undisturbed: Path, tmp_path: Path, moment: str) -> None:
    def stop(now: Progress) -> None:
        if now.doing == moment:
            raise Stopped

    with pytest.raises(Stopped):
        probe(lens_of(), *data, tmp_path / "run", **FEW, report=stop)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "probe").glob("*.safetensors")}
    # As a run leaves behind that is killed while it writes.
    (tmp_path / "run" / "probe" / ".resid_post-02-0000-0005.safetensors.x1.partial").write_bytes(b"half")
    found = probe(lens_of(), *data, tmp_path / "run", **FEW)
    assert_same_files(tmp_path / "run", undisturbed)
    for path in (tmp_path / "run" / "probe").glob("*.safetensors"):
        assert before.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, "not trained again"
    expected = {"pass 1 of 4": (30, 4), "pass 3 of 4": (14, 2), "measuring": (0, 0)}
    if moment in expected:
        assert (found.trained, found.passes) == expected[moment]


def test_another_memory_may_go_on(data: Data, undisturbed: Path, tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.doing == "pass 2 of 4":
            raise Stopped

    with pytest.raises(Stopped):
        probe(lens_of(), *data, tmp_path / "run", **FEW, report=stop)
    found = probe(lens_of(), *data, tmp_path / "run", **{**FEW, "memory": "8GB"})
    assert (found.passes, found.trained) == (1, 22)
    one, other = stored(undisturbed), stored(tmp_path / "run")
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key][0], other[key][0], rtol=1e-5, atol=1e-7)
    again = probe(lens_of(), *data, tmp_path / "run", **FEW)
    assert (again.passes, again.trained, again.run.before) == (0, 0, 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 2.0},
        {"alpha": "loo"},
        {"tokens": "image"},
        {"sites": ("attn_out",)},
        {"seed": 1},
        {"batch_size": 8},
        {"train_limit": 20},
    ],
)
def test_other_settings_do_not_go_on(data: Data, undisturbed: Path, changes: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    message = refused(lambda: probe(lens_of(), *data, undisturbed, **{**FEW, **changes}))
    assert next(iter(changes)).replace("_", " ").replace("train limit", "data fingerprint") in message
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


def test_as_many_other_tokens_do_not_go_on(data: Data, tmp_path: Path) -> None:
    """Four prefix tokens, and four image tokens."""
    module = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=len(NAMES), reg_tokens=3
    )
    lens = classlens.load(module.eval(), class_names=list(NAMES), transform=paper_transform((16, 16)))
    given: dict[str, Any] = {"sites": "resid_post", **ALONE}
    probe(lens, *data, tmp_path, tokens="prefix", **given)
    refused(lambda: probe(lens, *data, tmp_path, tokens="image", **given), "tokens")


def test_another_model_does_not_go_on(data: Data, undisturbed: Path) -> None:
    other = classlens.load(
        zoo.build("cls", seed=5), class_names=list(NAMES), transform=lens_of().preprocessing.transform
    )
    refused(lambda: probe(other, *data, undisturbed, **FEW), "weights")


def test_another_kind_is_added(data: Data, undisturbed: Path) -> None:
    probe(lens_of(), *data, undisturbed, **{**FEW, "memory": "8GB"}, kind="pooled")
    assert groups(undisturbed / STORE) == ["clean", "probe", "probe_pooled"]
    assert ProbeFolder(undisturbed / "probe_pooled").trained()[0] == ProbeTokens("attn_out", 0, 1, 5)
