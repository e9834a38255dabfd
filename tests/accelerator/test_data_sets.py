"""Runs over data sets on an accelerator write what they write on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import classlens
from classlens import Directions, EvaluateResult, Lens, Statistics
from classlens.models.builtin.cifar10 import CLASS_NAMES
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.tokens.conditions.registry import CONDITIONS
from tests import zoo
from tests.accelerator.devices import DEVICE, DOUBLE, assert_same, needs_cuda, needs_device
from tests.data.pictures import folder, groups

pytestmark = needs_device
IMAGES = 8
CLASSES = CLASS_NAMES[:4]
LOCAL: dict[str, Any] = {"workers": 0, "batch_size": 5}
VARIANT = "cls_registers"
BUILTIN = "builtin:cifar10"
LIVE = ("clean", "self_only", "no_cls", "context_removed", "class_removed", "outliers_removed")
_SIZES = pytest.mark.parametrize("dtype", [DOUBLE, torch.float32] if torch.float32 != DOUBLE else [DOUBLE], ids=str)


def on(device: str, dtype: torch.dtype = DOUBLE) -> Lens:
    """A random model for the classes of the pictures and one more."""
    size = zoo.VARIANTS[VARIANT].size
    names, transform = [*CLASS_NAMES, "other"], paper_transform(size)
    return classlens.load(zoo.build(VARIANT, dtype), class_names=names, transform=transform, device=device)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures whose class is on the left half."""
    root = tmp_path_factory.mktemp("data")
    spec = folder(root / "images", IMAGES, CLASSES)
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[:, :16] = 255
    for path in (root / "images").rglob("*.png"):
        other = root / "masks" / path.relative_to(root / "images")
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(other)
    return spec


def masks(data: str) -> Path:
    return Path(data.removeprefix("folder:")).parent / "masks"


def both(root: Path, run: Callable[[str, Path], Any]) -> tuple[Any, Any]:
    """Results of a run on the CPU and on the device."""
    results = []
    for name, device in (("cpu", "cpu"), ("device", DEVICE)):
        (root / name).mkdir()
        results.append(run(device, root / name))
    return results[0], results[1]


def assert_stores(cpu: Any, device: Any, dtype: torch.dtype) -> None:
    assert groups(cpu) == groups(device)
    for group in groups(cpu):
        left, right = (open_group(store, group).load() for store in (cpu, device))
        for name in ("device", "decoder"):  # the decoder is a digest of what was trained
            left.attrs.pop(name, None), right.attrs.pop(name, None)
        assert_same(left, right, dtype, group)


def assert_tables(cpu: pd.DataFrame, device: pd.DataFrame, dtype: torch.dtype) -> None:
    expected, columns = ({name: frame[name].to_numpy() for name in frame} for frame in (cpu, device))
    assert_same(expected, columns, dtype)


@_SIZES
def test_measure(tmp_path: Path, data: str, dtype: torch.dtype) -> None:
    def run(device: str, out: Path) -> Path:
        given: dict[str, Any] = {"conditions": LIVE, "memories": True, "attribution": True, "units": 4}
        given |= {"label_groups": {"cat": "animal", "dog": "animal", "ship": "vehicle"}, "masks": masks(data)}
        classlens.measure(on(device, dtype), data, out / "run.zarr", **given, **LOCAL)
        return out / "run.zarr"

    assert_stores(*both(tmp_path, run), dtype)


def test_measure_directions(tmp_path: Path, data: str) -> None:
    def run(device: str, out: Path) -> Path:
        drawn = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))
        directions = Directions(drawn[0], "resid_post", 1, encoder=drawn[1])
        classlens.measure(on(device), data, out / "run.zarr", units=3, directions=directions, **LOCAL)
        return out / "run.zarr"

    assert_stores(*both(tmp_path, run), DOUBLE)


@pytest.mark.parametrize("kind", ["ridge", "pooled", "logistic"])
def test_probe(tmp_path: Path, data: str, kind: Any) -> None:
    """Trained probes and their scores."""
    others = folder(tmp_path / "others", 2 * IMAGES, CLASSES)
    for path in (tmp_path / "others").rglob("*.png"):
        if int(path.stem) < IMAGES:
            path.unlink()

    def run(device: str, out: Path) -> Any:
        given: dict[str, Any] = {"sites": "mlp_out", "kind": kind, **LOCAL}
        given["alpha"] = "loo" if kind == "ridge" else 1.0
        result = classlens.probe(on(device), data, others, out / "probes.zarr", **given)
        return result.run.store

    assert_stores(*both(tmp_path, run), DOUBLE)


def test_tune_and_measure_with_it(tmp_path: Path, data: str) -> None:
    def run(device: str, out: Path) -> Any:
        file = out / "lens.safetensors"
        result = classlens.tune(on(device), data, file, epochs=3, held_out=0.25, control=True, **LOCAL)
        given: dict[str, Any] = {"conditions": ["clean", "tuned_lens"], "tuned_lens": file}
        classlens.measure(on(device), data, out / "run.zarr", **given, **LOCAL)
        return result, out / "run.zarr"

    (cpu, cpu_store), (device, device_store) = both(tmp_path, run)
    # Training adds up rounding errors over steps; its file holds float32.
    assert_same([cpu.tuned_lens.weight, cpu.blocks], [device.tuned_lens.weight, device.blocks], torch.float32)
    assert_stores(cpu_store, device_store, torch.float32)


def test_means_and_ablate(tmp_path: Path, data: str) -> None:
    """Means of the CPU serve a model on the device as well."""

    def run(device: str, out: Path) -> Any:
        measured = classlens.means(on(device), data, out / "means.safetensors", by_class=True, **LOCAL)
        to = tmp_path / "cpu" / "means.safetensors"
        given: dict[str, Any] = {"heads": 2, "draws": 2, "statistics": Statistics(resamples=50)}
        result = classlens.ablate(on(device), data, out / "ablation", to=to, **given, **LOCAL)
        lens = on(device)
        with lens.edit(classlens.AblateHeads([1], to=measured.means.by_class("cat"))):
            logits = lens.trace(torch.ones(1, 3, 16, 16)).model_logits
        return result, dict(measured.means.values), dict(measured.means.class_values), logits

    (cpu, *cpu_means), (device, *device_means) = both(tmp_path, run)
    assert_same(cpu_means, device_means, DOUBLE)
    assert_stores(cpu.run.store, device.run.store, DOUBLE)
    for table in ("effects", "agreement", "held_out", "pairs", "pair_tests"):
        assert_tables(getattr(cpu, table), getattr(device, table), DOUBLE)


def test_evaluate(tmp_path: Path, data: str) -> None:
    """Every metric but one; maps that differ by rounding could order tokens differently, in float64 they do not."""

    def run(device: str, out: Path) -> Any:
        given: dict[str, Any] = {"methods": ["class_gradient", "logit_attribution"], "metrics": "all"}
        given |= {"steps": 4, "permutations": 2, "masks": masks(data), "statistics": Statistics(resamples=50)}
        return classlens.evaluate(on(device), data, out / "evaluation", limit=6, **given, **LOCAL)

    cpu, device = both(tmp_path, run)
    assert set(METRICS) - set(cpu.scores.metric) <= {"randomization", "pointing"}
    assert_evaluations(cpu, device)


def test_models_by_name(tmp_path: Path, data: str) -> None:
    """The random twin, and weights that become random stage by stage."""

    def run(device: str, out: Path) -> Any:
        model: dict[str, Any] = {"device": device, "dtype": DOUBLE}
        given: dict[str, Any] = {"methods": "class_gradient", "metrics": ["randomization", "pointing"]}
        classlens.measure(BUILTIN, data, out / "run.zarr", conditions=["clean", "random_init"], **LOCAL, **model)
        result = classlens.evaluate(BUILTIN, data, out / "evaluation", limit=4, **given, **LOCAL, **model)
        return result, out / "run.zarr"

    (cpu, cpu_store), (device, device_store) = both(tmp_path, run)
    assert_stores(cpu_store, device_store, DOUBLE)
    assert "randomization" in set(cpu.scores.metric), cpu.missing
    assert_evaluations(cpu, device)


def assert_evaluations(cpu: EvaluateResult, device: EvaluateResult) -> None:
    assert_stores(cpu.run.store, device.run.store, DOUBLE)
    assert_tables(cpu.scores, device.scores, DOUBLE)
    assert_tables(cpu.curves, device.curves, DOUBLE)
    assert cpu.missing == device.missing


def test_the_batch_size_is_chosen_and_changes_no_value(tmp_path: Path, data: str) -> None:
    def run(device: str, out: Path) -> Path:
        result = classlens.measure(on(device), data, out / "run.zarr", batch_size="auto", workers=0)
        assert 1 <= result.batch_size <= 256
        return out / "run.zarr"

    assert_stores(*both(tmp_path, run), DOUBLE)


def test_worker_processes_read_pictures(tmp_path: Path, data: str) -> None:
    """Processes that decode pictures start beside an accelerator in use."""

    def run(device: str, out: Path) -> Path:
        classlens.measure(on(device), data, out / "run.zarr", batch_size=5, workers=1)
        return out / "run.zarr"

    assert_stores(*both(tmp_path, run), DOUBLE)


@needs_cuda
def test_a_batch_of_chosen_size_fits_and_leaves_nothing(tmp_path: Path, data: str) -> None:
    lens = on(DEVICE)
    classlens.measure(lens, data, tmp_path / "first.zarr", memories=True, **LOCAL)
    before = torch.cuda.memory_allocated()
    classlens.measure(lens, data, tmp_path / "second.zarr", memories=True, **LOCAL)
    assert torch.cuda.memory_allocated() == before


@needs_cuda
def test_a_random_twin_draws_no_numbers_of_the_device(tmp_path: Path, data: str) -> None:
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    classlens.measure(BUILTIN, data, tmp_path / "run.zarr", conditions=["random_init"], device=DEVICE, **LOCAL)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_every_condition_is_measured() -> None:
    assert {*LIVE, "random_init", "tuned_lens", "probe", "probe_pooled", "probe_logistic"} == set(CONDITIONS)
