"""Every public function and method with arguments of any kind: it works, or an error names the argument."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import classlens
from classlens.errors import ClasslensError
from classlens.lens.memories import class_memories, memory_classes
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec, write_store

Call = tuple[Callable[..., object], dict[str, Any]]

# What classlens hands out; users do not make it.
RESULTS = {"AnalyzeResult", "EvaluateResult", "MeasureResult", "Missing", "ProbeResult", "Progress", "TuneResult"}
RESULTS |= {"AblateResult", "Atlas", "Comparison", "Inspection", "MeansResult", "ReliabilityResult", "Trajectory"}
# Words that stand for an argument in an error.
ALSO = {
    "target": ["class"],
    "against": ["class", "loss"],
    "images": ["pixels"],
    "inputs": ["pixels"],
    "targets": ["class"],
    "indices": ["index"],
    "source": ["pixels"],
    "category": ["class"],
    "queries": ["token", "mask"],
    "keys": ["token", "mask"],
    "tokens": ["mask"],
    "size": ["pixels"],
    "spec": ["data"],
    "first": ["store"],
    "second": ["store"],
    "train": ["data", "store"],
    "test": ["data", "store"],
    "points": ["point"],
    "out": ["output", "store"],
    "head": ["builtin:cifar10"],
    "img_size": ["builtin:cifar10"],
    "checkpoint": ["builtin:cifar10"],
    "num_classes": ["builtin:cifar10"],
    "file": ["file"],
    "names": ["images"],
    "train_split": ["split"],
    "test_split": ["split"],
    "test_masks": ["masks"],
    "train_limit": ["limit"],
    "test_limit": ["limit"],
    "train_per_class": ["per_class"],
    "test_per_class": ["per_class"],
    "conditions": ["condition"],
    "heads": ["head"],
    "blocks": ["block"],
    "steps": ["larger"],
    "clean": ["image", "pixels"],
    "corrupt": ["pixels"],
    "parts": ["token", "head", "unit", "mask"],
    "kind": ["corruption"],
    "over": ["sweep"],
    "limit": ["image"],
    "path": ["file"],
    "directions": ["encoder"],
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken for a file is one of an empty folder."""
    monkeypatch.chdir(tmp_path)


def describing_heads(pixels: torch.Tensor) -> Call:
    """A call with a model of OpenCLIP, which does not load beside the lowest versions of other libraries."""
    try:
        from tests.models.tiny_open_clip import zero_shot
    except ImportError:
        return lambda: None, {}
    given = {"lens": classlens.load(zero_shot("cls", torch.float32)), "images": pixels, "prompts": ["red", "round"]}
    return classlens.describe_heads, {**given, "blocks": [2], "k": 1, "batch_size": 1}


def values(rng: random.Random) -> Any:
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice([True, False, np.True_]),
        lambda: rng.choice([-1, 0, 1, 7, 2**31, 2**63, 10**20, -(10**20)]),
        lambda: rng.choice([3.7, -0.0, float("nan"), float("inf"), 1e-300, 1j]),
        lambda: rng.choice(["", "xyz", "all", "Cat", "\0", "a" * 5000, "\ud800", "🐈", "a\nb", b"x"]),
        lambda: rng.choice([[], [None], [1, 2], ["cat"], (1, "x"), {}, {1: 2}, {"a"}, [[1]], range(3), slice(0, 2)]),
        lambda: rng.choice([np.int64(1), np.float32(2), np.str_("cat"), np.datetime64("2020"), np.uint8(200)]),
        lambda: np.array(rng.choice([2, [1, 2], [1.5], ["cat"], [[0.0]], [True, False], None, [None], []])),
        lambda: torch.tensor(rng.choice([[1, 1], [1.5], [], [[0.0, 1.0]], [True]])),
        lambda: rng.choice([torch.tensor(1), torch.zeros(2, 3, 8, 8), torch.float32, nn.Linear(3, 3)]),
        lambda: xr.DataArray(rng.choice([3, [1, 2], ["cat"], [0.5]])),
        lambda: rng.choice([Path("/nonexistent/x"), Path(), Image.new("L", (3, 3)), object(), object, iter([1])]),
    ]
    return rng.choice(makers)()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    """A call that works of every public function and method, by its name."""
    folder = tmp_path_factory.mktemp("public")
    for number in range(4):
        file = folder / "data" / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (60 * number, 9, 99)).save(file)
        mask = folder / "masks" / file.relative_to(folder / "data")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 1).save(mask)
    lens, pixels = classlens.load("builtin:cifar10"), torch.randn(2, 3, 32, 32)
    trace, view = lens.trace(pixels), lens.view
    block, readout, space = view.blocks[0], view.readouts[0], view.space
    norm = classlens.Norm("layer", torch.ones(4), None, 1e-6)
    small = classlens.ClassSpace((norm,), (), torch.randn(3, 4), None)
    tuned = classlens.TunedLens.identity(view)
    data = classlens.open_dataset(f"folder:{folder}/data")
    means = classlens.means(lens, f"folder:{folder}/data", folder / "means.safetensors", by_class=True).means
    save_file({"W_dec": torch.randn(3, 4)}, folder / "sae")
    store = folder / "measured.zarr"
    classlens.measure(lens, data, store, sites="mlp_out")
    labeled = folder / "labeled.zarr"
    write_store(labeled, StoreSpec(images=40))
    write_atlas_store(folder / "atlas.zarr", AtlasSpec(clean=StoreSpec(images=4)))
    atlas = classlens.atlas(folder / "atlas.zarr")
    states, last = torch.randn(2, 4), torch.randn(1, 65, 128)
    outs = iter(range(10**6))
    masks = {"masks": folder / "masks", "mask_values": "object=1"}
    selection = {"split": None, "label_column": None, "limit": 2, "shuffle": False}
    no_masks = {"masks": None, "mask_values": None}
    run = {"seed": 0, "batch_size": 1, "workers": 0, "skip_bad": False, "engine": "local", "cluster": None}
    load: dict[str, Any] = {
        "checkpoint": None,
        "num_classes": None,
        "head": None,
        "class_names": None,
        "transform": None,
    }
    load |= {"device": None, "dtype": None, "pretrained": True, "img_size": None, "crop_pct": None, "mean": None}
    load |= {"std": None, "interpolation": None, "multi_label": None, "transform": None}
    test = {"test_masks": None, "mask_values": None, "test_split": None, "test_per_class": 1, "test_limit": None}
    train = {"train_split": None, "train_per_class": None, "train_limit": 2}

    def to_new(function: Callable[..., object], ending: str = "") -> Callable[..., object]:
        return lambda **given: function(**{"out": f"{folder}/{next(outs)}{ending}", **given})

    def entered(edit: Any) -> Callable[..., object]:
        def run_edited(**given: Any) -> None:
            with lens.edit(edit(**given)):
                lens.trace(pixels)

        return run_edited

    def any_edit(edits: Any) -> None:
        with lens.edit(edits):
            pass

    tables: dict[str, Any] = {"folder": folder / "none", "out": None, "experiments": "evolution", "formats": "png"}
    tables["report"] = lambda *_: None
    sweep = lens.sweep(pixels, pixels.flip(0), target="cat", approximate=True)
    made = {field: getattr(view, field) for field in inspect.signature(classlens.ModelView).parameters}
    return {
        "load": (classlens.load, {"model": "builtin:cifar10", **load}),
        "Lens.check": (lens.check, {"pixels": pixels}),
        "Lens.trace": (lens.trace, {"images": pixels, "batch_size": 2}),
        "Lens.inspect": (lens.inspect, {"images": pixels, "target": "cat", "against": [1, 0], "batch_size": 1}),
        "Inspection.write": (lens.inspect(pixels).write, {"folder": folder / "inspection"}),
        "Lens.facts": (lens.facts, {"images": pixels, "sites": "mlp_out", "target": "cat", "batch_size": 2}),
        "Lens.explain": (lens.explain, {"images": pixels, "target": 1, "method": "chefer", "batch_size": 2}),
        "Lens.edit": (any_edit, {"edits": classlens.NoCls()}),
        "Lens.sweep": (
            lens.sweep,
            {"clean": pixels, "corrupt": pixels.flip(0), "over": "tokens", "metric": "logit", "target": "predicted"}
            | {"direction": "noise", "site": "mlp_out", "blocks": [5], "parts": [0, 9], "batch_size": 3},
        ),
        "Lens.sweep approximate": (
            lens.sweep,
            {"clean": pixels, "corrupt": pixels.flip(0), "over": "units", "metric": "log_odds", "target": "cat"}
            | {"direction": "noise", "blocks": [5], "parts": [0, 9], "approximate": True, "steps": 2, "batch_size": 3},
        ),
        "sweep_agreement": (classlens.sweep_agreement, {"exact": sweep, "approximate": sweep}),
        "Lens.sweep against": (
            lens.sweep,
            {"clean": pixels, "corrupt": classlens.Corruption("zero"), "over": "heads", "metric": "logit_difference"}
            | {"target": "cat", "against": 0, "blocks": 5, "parts": 1},
        ),
        "Corruption": (classlens.Corruption, {"kind": "noise", "amount": None, "seed": 1}),
        "Lens.with_tuned_lens": (lens.with_tuned_lens, {"tuned_lens": tuned}),
        "Trace.picture": (trace.picture, {"image": 0}),
        "Trace.window": (trace.window, {"photo": Image.new("RGB", (40, 50))}),
        "Trace.logits": (trace.logits, {"site": "mlp_out"}),
        "Trace.facts": (trace.facts, {"sites": ["mlp_out"], "target": "cat"}),
        "Trace.rank": (trace.rank, {"site": "mlp_out", "target": "predicted"}),
        "Trace.identifiability": (trace.identifiability, {"site": "mlp_out", "target": [1, "cat"]}),
        "Trace.top": (trace.top, {"site": "mlp_out", "k": 3}),
        "Trace.trajectory": (
            trace.trajectory,
            {"target": "cat", "k": 3, "decoder": tuned, "groups": {"cat": "a", 0: "b"}, "against": 0},
        ),
        "Trace.explain": (
            trace.explain,
            {"target": 3, "method": "class_gradient", "against": 5, "query": (0, 1)},
        ),
        "Trace.map": (trace.map, {"target": 3, "method": "grad_cam", "block": 3}),
        "Explainer": (classlens.Explainer, {"model": lens, "method": "chefer"}),
        "Explainer.attribute": (classlens.Explainer(lens).attribute, {"inputs": pixels, "target": 1}),
        "explain_func": (
            classlens.explain_func,
            {"model": lens, "inputs": pixels.numpy(), "targets": [1] * len(pixels), "method": "chefer"},
        ),
        "Trace.explain_every_class": (trace.explain_every_class, {"loss": "logit", "query": None}),
        "Trace.explain_classes": (lambda **given: list(trace.explain_classes(**given)), {"step": 3, "loss": "logit"}),
        "Trace.attention": (trace.attention, {"blocks": [5, 0], "heads": "all", "queries": "pooled"}),
        "Trace.states": (trace.states, {"site": "mlp_out", "blocks": 3, "tokens": "image"}),
        "Trace.norms": (trace.norms, {"site": "attn_out", "blocks": "all"}),
        "Trace.attribution": (trace.attribution, {"target": "cat", "against": 0}),
        "Trace.units": (trace.units, {"target": "cat", "sublayer": "attn", "block": 2, "top": 3, "against": 0}),
        "TunedLens": (classlens.TunedLens, {"weight": torch.zeros(1, 2, 2), "bias": torch.zeros(1, 2)}),
        "TunedLens.identity": (classlens.TunedLens.identity, {"view": view}),
        "TunedLens.projections": (tuned.projections, {"view": view}),
        "TunedLens.save": (tuned.save, {"file": folder / "tuned", "view": view, "metadata": None}),
        "TunedLens.to_bytes": (tuned.to_bytes, {"view": view, "metadata": {"a": "b"}}),
        "Means": (classlens.Means, {field: getattr(means, field) for field in vars(means)}),
        "Means.by_class": (means.by_class, {"category": "cat"}),
        "load_means": (classlens.load_means, {"file": folder / "means.safetensors"}),
        "Directions": (
            classlens.Directions,
            {"directions": states, "site": "mlp_out", "block": 3, "encoder": states, "encoder_bias": torch.zeros(2)}
            | {"decoder_bias": torch.zeros(4)},
        ),
        "Directions.coefficients": (classlens.Directions(states, "mlp_out", 3).coefficients, {"states": states}),
        "read_directions": (classlens.read_directions, {"path": folder / "sae", "site": "mlp_out", "block": 3}),
        "describe_heads": describing_heads(pixels),
        "direction_classes": (
            classlens.direction_classes,
            {"lens": lens, "directions": classlens.Directions(space.weight.detach(), "mlp_out", 3), "feature": 1}
            | {"k": 2},
        ),
        "head_map": (classlens.head_map, {"lens": lens, "block": 2, "head": 1, "k": 3}),
        "memory_classes": (memory_classes, {"lens": lens, "sublayer": "mlp", "block": 2, "unit": 3, "k": 2}),
        "class_memories": (class_memories, {"lens": lens, "sublayer": "mlp", "block": 2, "category": 3, "k": 2}),
        "Statistics": (classlens.Statistics, {"seed": 0, "permutations": 1, "resamples": 1, "confidence": 0.5}),
        "Cluster": (classlens.Cluster, {"address": None, "actors": None, "gpus": None}),
        "ClassSpace": (
            classlens.ClassSpace,
            {"before": (), "after": (norm,), "weight": torch.eye(3), "bias": None, "pool": None},
        ),
        "ClassSpace.project": (small.project, {"tokens": states}),
        "ClassSpace.normalize": (small.normalize, {"tokens": states}),
        "ClassSpace.head_input": (small.head_input, {"tokens": states[None]}),
        "ClassSpace.classify": (small.classify, {"inputs": states}),
        "ClassSpace.pooled": (small.pooled, {"tokens": states[None]}),
        "ClassSpace.vjp": (small.vjp, {"tokens": states, "gradient": states[:, :3]}),
        "ClassSpace.frozen": (small.frozen, {"tokens": states[None], "target": torch.tensor([1])}),
        "ClassSpace.frozen_input": (small.frozen_input, {"tokens": states[None]}),
        "ClassSpace.behind": (small.behind, {"step": norm}),
        "ClassSpace.fold": (small.fold, {}),
        "Norm": (classlens.Norm, {"kind": "layer", "weight": torch.ones(3), "bias": None, "eps": 1e-5}),
        "Norm.of": (classlens.Norm.of, {"layer": nn.LayerNorm(3)}),
        "Norm.inverse_scale": (norm.inverse_scale, {"x": states}),
        "Norm.pull": (norm.pull, {"gradient": states}),
        "Norm.vjp": (norm.vjp, {"x": states, "gradient": states}),
        "Output": (classlens.Output, {"weight": torch.eye(3), "bias": None, "scale": None, "norm": None}),
        "Output.of": (classlens.Output.of, {"projection": nn.Linear(3, 3)}),
        "Output.apply": (classlens.Output(torch.eye(4)).apply, {"x": states}),
        "ClassName": (classlens.ClassName, {"name": "cat", "wnid": None}),
        "open_dataset": (
            classlens.open_dataset,
            {
                "spec": f"folder:{folder}/data",
                "split": None,
                "label_column": None,
                **masks,
                "per_class": None,
                "limit": None,
                "seed": None,
            },
        ),
        "Dataset": (classlens.Dataset, {field: getattr(data, field) for field in vars(data) if field != "fingerprint"}),
        "Dataset.whole": (
            classlens.Dataset.whole,
            {"spec": "a", "split": None, "names": ["a"], "labels": [0], "classes": data.classes, "source": data.source},
        ),
        "Dataset.picture": (data.picture, {"index": 0}),
        "Dataset.file": (data.file, {"index": 0}),
        "Dataset.mask": (data.mask, {"index": 0}),
        "Dataset.ignored": (data.ignored, {"index": 0}),
        "Dataset.content": (data.content, {"indices": [0]}),
        "Dataset.subset": (data.subset, {"indices": [0]}),
        "open_store": (classlens.open_store, {"store": store}),
        "EditStep": (classlens.EditStep, {"point": "mlp_out", "block": 2, "change": max, "first": False}),
        "CutAttention": (
            entered(classlens.CutAttention),
            {"queries": "cls", "keys": "image", "renormalize": True, "blocks": [1], "heads": [0]},
        ),
        "NoCls": (entered(classlens.NoCls), {"renormalize": False, "blocks": "all", "heads": "all"}),
        "SelfOnly": (entered(classlens.SelfOnly), {"blocks": 1, "heads": np.array([1])}),
        "KeepTokens": (entered(classlens.KeepTokens), {"mask": torch.ones(65, dtype=torch.bool)}),
        "AblateHeads": (entered(classlens.AblateHeads), {"heads": [0], "blocks": 1, "tokens": "all", "to": "zero"}),
        "AblateNeurons": (
            entered(classlens.AblateNeurons),
            {"units": [0], "blocks": 1, "tokens": 3, "to": means, "sublayer": "mlp"},
        ),
        "AblateSublayer": (entered(classlens.AblateSublayer), {"sublayer": "mlp", "blocks": [1], "tokens": [0]}),
        "Patch": (
            entered(classlens.Patch),
            {"site": "mlp_out", "source": pixels, "blocks": [1], "tokens": "all", "heads": None},
        ),
        "Point": (
            classlens.Point,
            {"module": nn.Linear(2, 2), "end": "input", "more": (), "shares": (), "write": None},
        ),
        "Point.written": (block.points["mlp_out"].written, {"passing": states, "new": states}),
        "Readout": (classlens.Readout, {"space": space, "pooled": slice(0, 1), "weight": 1.0, "counts_bias": True}),
        "Readout.logits": (readout.logits, {"last": last, "mask": None}),
        "Readout.head_input": (readout.head_input, {"space": space, "states": last, "mask": None}),
        "Readout.classify": (readout.classify, {"inputs": torch.randn(1, 128)}),
        "BlockView": (
            classlens.BlockView,
            {"points": block.points, "heads": 4, "attn": block.attn, "mlp": block.mlp},
        ),
        "ModelView": (classlens.ModelView, made),
        "ModelView.run": (view.run, {"pixels": pixels}),
        "ModelView.tokens": (view.tokens, {"size": (32, 32)}),
        "ModelView.logits": (view.logits, {"last": last, "mask": None}),
        "ModelView.logits_after": (view.logits_after, {"block": 2, "states": last}),
        "ModelView.probabilities": (view.probabilities, {"logits": states}),
        "ModelView.require_exclusive": (view.require_exclusive, {"what": "a", "instead": "b"}),
        "ModelView.spaces": (view.spaces, {"count": 65}),
        "ModelView.space_at": (view.space_at, {"space": space, "site": "mlp_out", "block": 2}),
        "ModelView.space_by_site": (view.space_by_site, {"space": space}),
        "analyze": (
            classlens.analyze,
            {
                "stores": store,
                "experiments": "evolution",
                "statistics": classlens.Statistics(permutations=1, resamples=1),
            },
        ),
        "atlas": (classlens.atlas, {"store": folder / "atlas.zarr", "confidence": 0.9, "report": lambda *_: None}),
        "Atlas.write": (atlas.write, {"folder": folder / "tables"}),
        "compare": (
            classlens.compare,
            {
                "first": labeled,
                "second": folder / "atlas.zarr",
                "by": "name",
                "statistics": classlens.Statistics(permutations=1, resamples=1),
            },
        ),
        "figures": (classlens.figures, tables),
        "reliability": (classlens.reliability, {"train": labeled, "test": None, "statistics": None}),
        "measure": (
            to_new(classlens.measure),
            {"model": lens, "data": data, "conditions": "clean", "sites": "mlp_out", "memories": False}
            | {"tuned_lens": None, "probes": None, "label_groups": None, "per_class": None}
            | {**selection, **no_masks, **run},
        ),
        "ablate": (
            to_new(classlens.ablate),
            {"model": lens, "data": data, "to": "zero", "heads": 1, "draws": 1, "classes": "all", "pairs": 0}
            | {"per_class": None, "statistics": None, **selection, **run, "limit": 4},
        ),
        "evaluate": (
            to_new(classlens.evaluate),
            {"model": lens, "data": data, "methods": "random", "metrics": "removal", "steps": 2, "permutations": 1}
            | {"ranks": None, "maps": None, "per_class": 1, "statistics": None, **selection, **no_masks, **run},
        ),
        "probe": (
            to_new(classlens.probe),
            {"model": lens, "train": data.subset([0, 1]), "test": data.subset([2, 3]), "sites": "mlp_out"}
            | {"kind": "ridge", "alpha": 1.0, "tokens": "cls", "ram": "1GB", "tuned_lens": None}
            | {"shuffle": False, **train, **test, **run},
        ),
        "tune": (
            to_new(classlens.tune, ".safetensors"),
            {"model": lens, "data": data, "tokens": "pooled", "epochs": 1, "patience": 1, "learning_rate": 0.1}
            | {"held_out": 0.5, "control": False, "ram": "1GB", **selection, **run},
        ),
        "means": (
            to_new(classlens.means, ".safetensors"),
            {"model": lens, "data": data, "by_class": False, "per_class": None, **selection, **run},
        ),
    }


def public() -> Iterator[str]:
    """Names of public functions and classes, and of the methods that these define or inherit."""
    for name in classlens.__all__:
        member = getattr(classlens, name)
        if not callable(member) or name in RESULTS or (inspect.isclass(member) and issubclass(member, Exception)):
            continue
        if not inspect.isclass(member):
            yield name
            continue
        if name not in ("Lens", "Trace", "Edit"):  # made by ``load`` and ``trace``, and by users
            yield name
        if not issubclass(member, classlens.Edit):  # ``steps`` and ``contexts`` are run by entering the edit
            found = inspect.getmembers(member, lambda part: inspect.isfunction(part) or inspect.ismethod(part))
            fields = getattr(member, "__dataclass_fields__", ())
            names = [method for method, _ in found if not method.startswith("_") and method not in fields]
            yield from (f"{name}.{method}" for method in names)


def test_every_public_function_is_called(calls: dict[str, Call]) -> None:
    assert set(public()) <= set(calls), "add a call that works"


@pytest.mark.wrong_types
def test_the_calls_work(calls: dict[str, Call]) -> None:
    for name, (function, given) in calls.items():
        if name == "figures":
            with pytest.raises(ClasslensError, match="has no tables"):
                function(**given)
        else:
            function(**given)


def fuzz(calls: dict[str, Call], seed: int, count: int) -> dict[str, int]:
    """Change one argument of a call at a time; returns the numbers of calls that work and of those that are refused."""
    rng = random.Random(seed)
    outcomes = {"works": 0, "refused": 0}
    for _ in range(count):
        name = rng.choice([each for each, (_, given) in calls.items() if given])
        function, given = calls[name]
        argument, value = rng.choice(list(given)), values(rng)
        if argument == "report" and callable(value):  # what a user's own function raises is its own affair
            continue
        said = f"{name}({argument}={value!r:.80})"
        try:
            function(**{**given, argument: value})
            outcomes["works"] += 1
        except ClasslensError as error:
            message, outcomes["refused"] = str(error), outcomes["refused"] + 1
            words = [argument, argument.replace("_", " "), argument.removesuffix("s"), *ALSO.get(argument, [])]
            assert any(word in message for word in words), f"{said} is refused without its name: {message}"
            assert "\n" not in message, f"{said}: {message}"
        except Exception as error:
            raise AssertionError(f"{said} raises {type(error).__name__}: {error}") from error
    return outcomes


@pytest.mark.wrong_types
def test_arguments_of_any_kind(calls: dict[str, Call]) -> None:
    slow = ("measure", "ablate", "evaluate", "probe", "tune", "means")
    quick = {name: call for name, call in calls.items() if name not in slow}
    outcomes = fuzz(quick, seed=0, count=400)
    assert outcomes["refused"] > 300
    assert outcomes["works"] > 10


@pytest.mark.slow
@pytest.mark.wrong_types
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_arguments_of_any_kind(calls: dict[str, Call], seed: int) -> None:
    fuzz(calls, seed, count=1500)


@pytest.mark.wrong_types
def test_numbers_and_arrays_of_every_library(calls: dict[str, Call], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the same whatever holds the number, the class or the tokens."""
    lens = classlens.load("builtin:cifar10")
    pixels = torch.randn(2, 3, 32, 32)
    trace: Any = lens.trace(pixels)
    target: Any
    expected = trace.rank("mlp_out", [3, 5])
    for target in (np.array([3, 5]), torch.tensor([3, 5]), xr.DataArray([3, 5]), (np.int8(3), torch.tensor(5))):
        assert trace.rank("mlp_out", target).equals(expected)
        assert lens.facts(pixels, "mlp_out", target)["rank"].isel(site=0, drop=True).equals(expected)
    assert trace.rank("mlp_out", trace.predictions).equals(trace.rank("mlp_out"))
    assert trace.explain(3, against=trace.predictions).equals(trace.explain(3, against="predicted"))
    assert trace.top(k=np.array(2)).equals(trace.top(k=2))
    assert trace.picture(xr.DataArray(1)) == trace.picture(1)
    with lens.edit(classlens.AblateHeads([1], blocks=[2])):
        ablated = lens.trace(pixels).model_logits
    kind: Any
    for kind in (np.array, torch.tensor, xr.DataArray, tuple):
        with lens.edit(classlens.AblateHeads(kind([1]), blocks=kind([2]))):
            assert lens.trace(pixels).model_logits.equals(ablated)
