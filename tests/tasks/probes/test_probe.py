"""Probes of a data set: weights compared with scikit-learn, measured ranks with loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV

import classlens
from classlens import probe
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.store.open_store import open_group
from classlens.store.probe_folder import ProbeFolder
from classlens.tasks.probes.probe import STORE
from classlens.tasks.probes.training import ALPHAS
from tests import literal, zoo
from tests.data.pictures import folder, groups
from tests.refusals import refused
from tests.tasks.probes.stored import ram_for, stored_probes
from tests.tasks.tiny import (
    BLOCKS,
    DATA_CLASSES,
    LOCAL,
    NAMES,
    TOKENS,
    WIDTH,
    Data,
    data_in,
    labels_of,
    lens_of,
    rank_of,
    ridge_of,
    states_of,
)

IMAGES = 30
SITES = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def features(data: Data) -> literal.States:
    return states_of(lens_of(), data.train)


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every site and token in one pass."""
    out = tmp_path_factory.mktemp("probes") / "trained"
    reports: list[Progress] = []
    result = probe(lens_of(), *data, out, sites=SITES, report=reports.append, **LOCAL)
    assert (result.trained, result.passes, result.condition) == ((4 * BLOCKS + 1) * TOKENS, 1, "probe")
    assert result.run.store == str(out / STORE)
    assert {report.images for report in reports} == {IMAGES + 9}
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == IMAGES + 9
    assert {"training images", "measuring"} < {report.doing for report in reports}
    # Training images count as finished when measuring begins, and do not enter its rate.
    assert {report.before for report in reports if report.doing == "measuring"} == {IMAGES}
    return out


def test_weights_against_scikit_learn(trained: Path, data: Data, features: literal.States) -> None:
    weights, label = stored_probes(trained), labels_of(data.train)
    assert len(weights) == (4 * BLOCKS + 1) * TOKENS
    for (site, block, token), (weight, bias, alpha) in weights.items():
        ridge = ridge_of(features[site][block][:, token].numpy(), label)
        # Weights of order 0.1 are rounded to 1e-8 in float32.
        np.testing.assert_allclose(weight.T, ridge.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, ridge.intercept_, rtol=0, atol=1e-5)
        assert alpha == 1.0
        # [CLS] before the first block is the same for all images.
        assert (site, token) == ("embed", 0) or np.abs(ridge.coef_).max() > 1e-3


def assert_ranks(store: Path, condition: str, lens: classlens.Lens, data: Data, coefficients: Any) -> None:
    """Every rank, logit and top-1 class by loops; -1 and NaN where ``coefficients(site, block, token)`` is None."""
    group = open_group(store, condition).load()
    states, label = states_of(lens, data.test), labels_of(data.test)
    assert group["label"].values.tolist() == group["target"].values.tolist() == label
    compared = 0
    for site in [*map(str, group["site"].values), *(["embed"] if "embed_rank" in group else [])]:
        for block in range(1 if site == "embed" else BLOCKS):
            for token in range(group.sizes["token"]):
                if site == "embed":
                    rank, top1, logit = (group[f"embed_{key}"].values[:, token] for key in ("rank", "top1", "logit"))
                else:
                    facts = group.sel(site=site, block=block).isel(token=token)
                    rank, top1, logit = (facts[key].values for key in ("rank", "top1", "logit"))
                ridge = coefficients(site, block, token)
                if ridge is None:
                    assert (rank == -1).all()
                    assert (top1 == -1).all()
                    assert np.isnan(logit).all()
                    continue
                scores = states[site][block][:, token].numpy() @ ridge.coef_.T + ridge.intercept_
                for image, row in enumerate(scores):
                    score = row[label[image]]
                    assert logit[image] == pytest.approx(score, abs=1e-4)
                    # Classes without an image tie except for rounding: they have the same targets.
                    assert row[top1[image]] == pytest.approx(row.max(), abs=1e-5)
                    others = np.delete(row, label[image])
                    if np.abs(others - score).min() > 1e-4:
                        assert rank[image] == rank_of(row, label[image])[0]
                        compared += 1
    assert compared > 10


def test_measured_facts(trained: Path, data: Data, features: literal.States) -> None:
    label = labels_of(data.train)

    def coefficients(site: str, block: int, token: int) -> Any:
        return ridge_of(features[site][block][:, token].numpy(), label)

    assert_ranks(trained / STORE, "probe", lens_of(), data, coefficients)
    clean, probed = (open_group(trained / STORE, name).load() for name in ("clean", "probe"))
    assert groups(trained / STORE) == ["clean", "probe"]
    for name in ("prediction", "correct", "label", "kept"):
        np.testing.assert_array_equal(clean[name], probed[name])
    assert (clean["rank"].values != probed["rank"].values).any()
    facts = lens_of().facts(
        [str(Path(data.test.removeprefix("folder:")) / name) for name in clean["image"].values],
        ("attn_out", "resid_mid", "mlp_out", "resid_post"),
        labels_of(data.test),
    )
    np.testing.assert_array_equal(clean["rank"], facts["rank"])


@pytest.mark.parametrize(("probes", "passes"), [(22, 3), (1, 65)])
def test_several_passes_train_the_same(trained: Path, data: Data, tmp_path: Path, probes: int, passes: int) -> None:
    result = probe(lens_of(), *data, tmp_path, sites=SITES, ram=ram_for(probes), **LOCAL)
    assert result.passes == passes
    expected, weights = stored_probes(trained), stored_probes(tmp_path)
    assert weights.keys() == expected.keys()
    for key in expected:
        # The same sums over other groups of images: float64, rounded to float32 at the end.
        np.testing.assert_allclose(weights[key][0], expected[key][0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(weights[key][1], expected[key][1], rtol=1e-5, atol=1e-7)
    first, second = (open_group(out / STORE, "probe").load() for out in (trained, tmp_path))
    np.testing.assert_allclose(first["logit"], second["logit"], rtol=0, atol=1e-5)
    with pytest.raises(classlens.ClasslensError, match=r"ram of .* is too little"):
        probe(lens_of(), *data, tmp_path / "less", sites=SITES, ram=ram_for(1) - 1, **LOCAL)


@pytest.mark.parametrize(
    ("tokens", "positions"), [("all", range(7)), ("prefix", range(3)), ("image", range(3, 7)), ("cls", range(1))]
)
def test_token_choices(data: Data, tmp_path: Path, tokens: Any, positions: range) -> None:
    lens = lens_of("cls_registers")
    result = probe(lens, *data, tmp_path, sites="resid_post", tokens=tokens, alpha=0.5, **LOCAL)
    assert result.trained == BLOCKS * len(positions)
    states, label = states_of(lens, data.train)["resid_post"], labels_of(data.train)
    ridges = {
        (block, token): ridge_of(states[block][:, token].numpy(), label, 0.5)
        for block in range(BLOCKS)
        for token in positions
    }
    weights = stored_probes(tmp_path)
    assert {key[1:] for key in weights} == ridges.keys()
    for (_, block, token), (weight, _, alpha) in weights.items():
        np.testing.assert_allclose(weight.T, ridges[block, token].coef_, rtol=0, atol=1e-5)
        assert alpha == 0.5
    if len(positions) < 7:
        assert_ranks(tmp_path / STORE, "probe", lens, data, lambda _, block, token: ridges.get((block, token)))


@pytest.mark.parametrize("ram", ["8GB", ram_for(1, 16 * 4)])
def test_one_probe_for_all_image_tokens(data: Data, tmp_path: Path, ram: Any) -> None:
    lens = lens_of()
    result = probe(lens, *data, tmp_path, sites=("attn_out", "resid_post"), kind="pooled", ram=ram, **LOCAL)
    assert (result.trained, result.condition) == (2 * BLOCKS, "probe_pooled")
    assert result.passes == (1 if ram == "8GB" else 2 * BLOCKS)
    states, label = states_of(lens, data.train), labels_of(data.train)
    ridges = {}
    for (site, block, start), (weight, bias, _) in stored_probes(tmp_path, "probe_pooled").items():
        rows = states[site][block][:, 1:].flatten(0, 1).numpy()
        ridges[site, block] = ridge_of(rows, np.repeat(label, 4).tolist())
        np.testing.assert_allclose(weight.T, ridges[site, block].coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, ridges[site, block].intercept_, rtol=0, atol=1e-5)
        assert start == 1
    assert len(ridges) == 2 * BLOCKS

    def coefficients(site: str, block: int, token: int) -> Any:
        return ridges[site, block] if token > 0 else None

    assert_ranks(tmp_path / STORE, "probe_pooled", lens, data, coefficients)
    refused(lambda: probe(lens, *data, tmp_path, kind="pooled", tokens="all", **LOCAL), "not tokens 'all'")


@pytest.mark.parametrize("ram", ["8GB", 2 * ram_for(4)])
def test_alpha_by_leave_one_out(data: Data, features: literal.States, tmp_path: Path, ram: Any) -> None:
    result = probe(lens_of(), *data, tmp_path, sites="mlp_out", alpha="loo", ram=ram, **LOCAL)
    assert result.passes == (2 if ram == "8GB" else 4)
    label, alphas = labels_of(data.train), set()
    signs = np.where(np.array(label)[:, None] == np.arange(len(NAMES)), 1.0, -1.0)
    for (_, block, token), (weight, bias, alpha) in stored_probes(tmp_path).items():
        x = features["mlp_out"][block][:, token].numpy()
        chosen = RidgeCV(ALPHAS).fit(x, signs)
        assert alpha == chosen.alpha_
        np.testing.assert_allclose(weight.T, chosen.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(bias, chosen.intercept_, rtol=0, atol=1e-5)
        alphas.add(float(alpha))
    assert len(alphas) > 1
    assert {float(value) for _, alpha in ProbeFolder(tmp_path / "probe").alphas() for value in alpha} == alphas


def test_alpha_of_pooled_probes_leaves_out_whole_images(data: Data, tmp_path: Path) -> None:
    """Not single rows: the tokens of an image resemble each other."""
    lens = lens_of()
    probe(lens, *data, tmp_path, sites="resid_post", kind="pooled", alpha="loo", **LOCAL)
    states, label = states_of(lens, data.train)["resid_post"], np.array(labels_of(data.train))
    for (_, block, _), (_, _, alpha) in stored_probes(tmp_path, "probe_pooled").items():
        x = states[block][:, 1:].numpy()
        errors = []
        for candidate in ALPHAS:
            total = 0.0
            for image in range(IMAGES):
                others = np.arange(IMAGES) != image
                rows = x[others].reshape(-1, WIDTH)
                ridge = ridge_of(rows, np.repeat(label[others], 4).tolist(), candidate)
                target = np.where(np.arange(len(NAMES)) == label[image], 1.0, -1.0)
                total += float(((ridge.predict(x[image]) - target) ** 2).sum())
            errors.append(total)
        assert alpha == ALPHAS[errors.index(min(errors))]


def test_logistic_probes(data: Data, features: literal.States, tmp_path: Path) -> None:
    result = probe(lens_of(), *data, tmp_path, sites="resid_post", kind="logistic", tokens="cls", alpha=0.1, **LOCAL)
    assert (result.trained, result.condition) == (BLOCKS, "probe_logistic")
    label = labels_of(data.train)
    for (_, block, token), (weight, bias, alpha) in stored_probes(tmp_path, "probe_logistic").items():
        x = features["resid_post"][block][:, token].float().double().numpy()
        mean, scale = x.mean(axis=0), x.std(axis=0)
        fitted = LogisticRegression(C=10.0, max_iter=1000).fit((x - mean) / scale, label)
        scores = x @ weight[:, : len(DATA_CLASSES)] + bias[: len(DATA_CLASSES)]
        # The optimizer stops at a gradient of 1e-4.
        np.testing.assert_allclose(scores, fitted.decision_function((x - mean) / scale), rtol=0, atol=1e-4)
        assert (bias[len(DATA_CLASSES) :] == -1e9).all()
        assert alpha == np.float32(0.1)
    probed = open_group(tmp_path / STORE, "probe_logistic").load()
    assert (probed["rank"].values[..., 1:] == -1).all()
    assert (probed["top1"].values[..., 0] < len(DATA_CLASSES)).all()
    assert (probed["rank"].values[..., 0] < len(DATA_CLASSES)).all()


def test_float32_models(data: Data, tmp_path: Path) -> None:
    """Compared with scikit-learn in float64 on the same float32 features."""
    lens = lens_of("avg", torch.float32)
    probe(lens, *data, tmp_path, sites="resid_post", **LOCAL)
    outputs: list[torch.Tensor] = []
    pixels = torch.stack([lens.preprocessing(open_dataset(data.train).picture(image), "") for image in range(IMAGES)])
    module: Any = lens.view.module
    hook = module.blocks[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    with torch.no_grad():
        for batch in pixels.split(16):
            module(batch)
    hook.remove()
    x, label = torch.cat(outputs).double().numpy(), labels_of(data.train)
    for (_, block, token), (weight, _, _) in stored_probes(tmp_path).items():
        if block == 1:
            np.testing.assert_allclose(weight.T, ridge_of(x[:, token], label).coef_, rtol=0, atol=1e-5)


def test_unlabeled_and_unreadable_images(data: Data, features: literal.States, tmp_path: Path) -> None:
    root = tmp_path / "images"
    spec = folder(root, IMAGES, DATA_CLASSES)
    bad = root / "dog" / "0004.png"
    bad.write_bytes(b"no image")
    dataset = open_dataset(spec)
    labels = dataset.labels.copy()
    labels[[0, 7]] = -1
    unlabeled = replace(dataset, labels=labels)
    given: dict[str, Any] = {"sites": "resid_post", "tokens": "cls", **LOCAL}
    refused(lambda: probe(lens_of(), unlabeled, data.test, tmp_path / "no", **given), str(bad), "--skip-bad")
    result = probe(lens_of(), unlabeled, data.test, tmp_path / "out", **given, skip_bad=True)
    assert result.trained == BLOCKS
    missing = [0, 7, list(dataset.names).index("dog/0004.png")]
    used = [image for image in range(IMAGES) if image not in missing]
    label = labels_of(data.train)
    for (_, block, token), (weight, _, _) in stored_probes(tmp_path / "out").items():
        x = features["resid_post"][block][used, token].numpy()
        ridge = ridge_of(x, [label[image] for image in used])
        np.testing.assert_allclose(weight.T, ridge.coef_, rtol=0, atol=1e-5)
    bare = replace(dataset, labels=np.full(IMAGES, -1))
    refused(lambda: probe(lens_of(), bare, data.test, tmp_path / "none", **given), "no labels")


def test_a_tuned_lens_beside(data: Data, tmp_path: Path) -> None:
    from classlens.lens.tuned_lens import TunedLens

    lens = lens_of()
    result = probe(
        lens, *data, tmp_path, sites="resid_post", tokens="cls", tuned_lens=TunedLens.identity(lens.view), **LOCAL
    )
    assert groups(result.run.store) == ["clean", "probe", "tuned_lens"]
    clean, tuned = (open_group(result.run.store, name).load() for name in ("clean", "tuned_lens"))
    np.testing.assert_array_equal(clean["rank"], tuned["rank"])


def test_the_model_is_left_as_it_was(data: Data, tmp_path: Path) -> None:
    lens = lens_of()
    before = zoo.snapshot(lens.view.module)
    probe(lens, *data, tmp_path, sites="resid_post", **LOCAL)
    assert zoo.snapshot(lens.view.module) == before


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"kind": "lasso"}, ("kind 'lasso'", "ridge, pooled, logistic")),
        ({"kind": "logistics"}, ("did you mean 'logistic'",)),
        ({"alpha": 0.0}, ("alpha 0.0", "a number above 0 or 'loo'")),
        ({"alpha": -1}, ("alpha -1",)),
        ({"alpha": "small"}, ("alpha 'small'",)),
        ({"alpha": True}, ("alpha True",)),
        ({"alpha": float("nan")}, ("alpha nan",)),
        ({"alpha": "loo", "kind": "logistic"}, ("'loo' is for ridge probes",)),
        ({"ram": "some"}, ("ram 'some'",)),
        ({"ram": "1kB"}, ("ram of 0.0 MB is too little",)),
        ({"sites": "resid_pre"}, ("'resid_pre'",)),
        ({"tokens": "dist"}, ("'dist'",)),
        ({"test": "same"}, ("30 images", "both for training and test")),
        ({"train": "folder:/nowhere"}, ("is not a folder",)),
        ({"train_limit": 0}, ("limit 0 cannot be used",)),
        ({"batch_size": 65}, ("batch_size 65",)),
    ],
)
def test_mistakes(data: Data, tmp_path: Path, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    given: dict[str, Any] = {"train": data.train, "test": data.test, "sites": "resid_post", **LOCAL, **changes}
    if given["test"] == "same":
        given["test"] = given["train"]
    refused(lambda: probe(lens_of(), out=tmp_path / "run", **given), *names)
    assert not (tmp_path / "run" / STORE).exists()
    assert not ProbeFolder(tmp_path / "run" / "probe").folder.exists(), "nothing binds the next run"


def test_a_file_as_output(data: Data, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("dear")
    refused(lambda: probe(lens_of(), *data, tmp_path / "out", **LOCAL), "is a file: expected a folder")
    assert (tmp_path / "out").read_text() == "dear"


def test_training_and_test_images_from_one_folder(data: Data, tmp_path: Path) -> None:
    """As long as no image is in both."""
    every = open_dataset(data.train)
    result = probe(
        lens_of(),
        every.subset(np.arange(20)),
        every.subset(np.arange(20, 30)),
        tmp_path / "out",
        sites="resid_post",
        tokens="cls",
        **LOCAL,
    )
    assert result.run.images == 10
    refused(
        lambda: probe(
            lens_of(), every.subset(np.arange(20)), every.subset(np.arange(19, 30)), tmp_path / "no", **LOCAL
        ),
        "1 images",
        every.names[19],
    )
