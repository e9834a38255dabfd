"""Adapters of peft: modules that hold them, merged or as they are, and saved folders on top of a base."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import classlens
from tests import zoo
from tests.models import tiny_timm, tiny_torchvision, tiny_transformers
from tests.models.test_weight_search import trained
from tests.refusals import refused

peft: Any = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

QKV = ["q_proj", "v_proj"]
INNER = ["q_proj", "fc1"]
OUTPUT = ["q_proj", "o_proj", "fc2"]
HEAD: dict[str, Any] = {"modules_to_save": ["classifier"]}
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "a head of its own": HEAD,
    "DoRA": {"use_dora": True, **HEAD},
    "rsLoRA, ranks and alphas by layer": {
        "use_rslora": True,
        "rank_pattern": {"o_proj": 4},
        "alpha_pattern": {"layers.1.attention.q_proj": 3},
    },
    "biases": {"bias": "all"},
    "bias of B": {"lora_bias": True},
    "every linear layer": {"target_modules": "all-linear"},
    "a convolution": {"target_modules": ["projection", "fc2"]},
    "a convolution, DoRA": {"target_modules": ["projection", "fc2"], "use_dora": True},
}


def drawn(model: Any, seed: int = 0) -> Any:
    """An adapted model in evaluation mode, with every trained part drawn anew."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def adapted(base: nn.Module, **options: Any) -> Any:
    return drawn(peft.get_peft_model(base, peft.LoraConfig(**{"r": 2, "lora_alpha": 8, **options})))


def vit() -> Any:
    return tiny_transformers.build(dtype=torch.float32)


def logits(output: Any) -> Tensor:
    result: Tensor = getattr(output, "logits", output)
    return result


def assert_same(lens: classlens.Lens, module: nn.Module) -> None:
    """The logits of the module itself, and an attribution that sums to them."""
    pixels = torch.randn(2, 3, *lens.view.input_size, generator=torch.Generator().manual_seed(1))
    trace = lens.trace(pixels)
    with torch.no_grad():
        expected = logits(module(pixels))
    torch.testing.assert_close(torch.from_numpy(trace.model_logits.values), expected, rtol=0, atol=1e-5)
    parts = trace.attribution(2)
    total = parts["embed"] + parts["attention"].sum(["block", "head"]) + parts["mlp"].sum("block") + parts["bias"]
    torch.testing.assert_close(torch.from_numpy(total.values), expected[:, 2], rtol=0, atol=1e-5)


# Modules


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_is_merged_in_a_copy(kind: str) -> None:
    model = adapted(vit(), **{"target_modules": OUTPUT, **KINDS[kind]})
    before = zoo.snapshot(model)
    lens = classlens.load(model, merge_adapters=True)
    assert_same(lens, model)
    assert zoo.snapshot(model) == before
    assert_same(classlens.load(nn.DataParallel(model), merge_adapters=True), model)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
@pytest.mark.parametrize("targets", [QKV, INNER])
def test_a_module_is_read_as_it_is(targets: list[str], options: dict[str, Any]) -> None:
    """Adapters before what is read, and a head of their own: the usual recipe for image classification."""
    model = adapted(vit(), target_modules=targets, **HEAD, **options)
    assert_same(classlens.load(model), model)
    timm = adapted(zoo.build("cls", torch.float32), target_modules=["qkv"], modules_to_save=["head"], **options)
    assert_same(classlens.load(timm), timm)


@pytest.mark.parametrize("targets", [["o_proj"], ["fc2"], ["classifier"]])
def test_weights_that_are_not_the_whole_map_are_refused(targets: list[str]) -> None:
    model = adapted(vit(), target_modules=targets)
    refused(lambda: classlens.load(model), "merge_adapters=True", "model = model.merge_and_unload()")


@pytest.mark.parametrize("name", ["default", "other"])
def test_the_active_one_of_several_adapters(name: str) -> None:
    model = adapted(vit(), target_modules=QKV, **HEAD)
    model.add_adapter("other", peft.LoraConfig(r=3, lora_alpha=8, target_modules=["o_proj"], **HEAD))
    drawn(model, seed=1).set_adapter(name)
    assert_same(classlens.load(model, merge_adapters=True), model)
    if name == "default":
        refused(lambda: classlens.load(model), "merge_adapters=True")  # o_proj has an adapter, though an inactive one


def test_adapters_that_are_disabled() -> None:
    model = adapted(vit(), target_modules=QKV, **HEAD)
    with model.disable_adapter():
        assert_same(classlens.load(model), model)
        refused(lambda: classlens.load(model, merge_adapters=True), "are disabled", "model.unload()")


def test_adapters_without_the_wrapper_of_peft() -> None:
    config = peft.LoraConfig(r=2, target_modules=OUTPUT, **HEAD)
    model = drawn(peft.inject_adapter_in_model(config, vit()))
    assert_same(classlens.load(model, merge_adapters=True), model)


def test_attention_of_torch() -> None:
    model = adapted(
        tiny_torchvision.build("plain").float(),
        target_modules=["self_attention", "mlp.3"],
        modules_to_save=["heads.head"],
    )
    assert_same(classlens.load(model, merge_adapters=True), model)


# Folders


@pytest.fixture
def base(tmp_path: Path) -> Path:
    vit().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def saved(base: Path, folder: Path, **options: Any) -> Any:
    """An adapter on a base, saved by peft; the reference is the module that was saved."""
    library = tiny_transformers.transformers.ViTForImageClassification
    model = adapted(library.from_pretrained(base), **{"target_modules": OUTPUT, **options})
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_on_its_base(kind: str, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "adapter"
    model = saved(base, folder, **KINDS[kind])
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(base, checkpoint=folder)
    assert_same(lens, model)
    assert "adapter: the adapter is merged into" in caplog.text
    assert f"layers of {base}" in caplog.text
    merged = model.merge_and_unload().state_dict()
    for name, value in lens.view.module.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=0, atol=1e-6)
    assert_same(classlens.load(folder), lens.view.module)


def test_the_revision_of_a_base_on_a_hub(tmp_path: Path) -> None:
    """The hub has another revision by now; the adapter names the one that it was trained on."""
    repository, commits = tmp_path / "hub" / "models--me--pets", {"main": "0" * 40, "v1": "1" * 40}
    for name, commit in commits.items():
        model = vit()
        with torch.no_grad():
            model.classifier.bias.fill_(len(name))
        model.save_pretrained(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    model = saved(repository / "snapshots" / commits["v1"], tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    pinned = {"base_model_name_or_path": "me/pets", "revision": "v1"}
    config.write_text(json.dumps(json.loads(config.read_text()) | pinned))
    options: dict[str, Any] = {"cache_dir": str(tmp_path / "hub")}
    assert_same(classlens.load(tmp_path / "adapter", **options), model)
    other = classlens.load(tmp_path / "adapter", revision="main", **options)
    assert float(other.view.module.classifier.bias[0]) == len("main")


OLD = {
    "vit.layers": "vit.encoder.layer",
    "attention.q_proj": "attention.attention.query",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc2": "output.dense",
}


def test_a_base_without_a_head_and_names_of_an_older_release(tmp_path: Path) -> None:
    """The head and its number of classes are those of the adapter."""
    tiny_transformers.transformers.ViTModel(vit().config).save_pretrained(tmp_path / "base")
    model = saved(tmp_path / "base", tmp_path / "adapter", **HEAD)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    for new, old in OLD.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    save_file(state, file)
    assert_same(classlens.load(tmp_path / "adapter"), model)


def test_the_older_form_of_a_file(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    model = saved(base, folder, **HEAD)
    file = folder / "adapter_model.safetensors"
    state = {
        name.replace("classifier.", "classifier.modules_to_save.").replace(".lora_A.", ".lora_A.default."): value
        for name, value in load_file(file).items()
    }
    torch.save(state, folder / "adapter_model.bin")
    file.unlink()
    assert_same(classlens.load(base, checkpoint=folder), model)


def test_a_run_with_adapters(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(base, tmp_path / "run" / "checkpoint-5", **HEAD)
    model = saved(base, tmp_path / "run" / "checkpoint-10", use_dora=True, **HEAD)
    with caplog.at_level("WARNING", "classlens"):
        assert_same(classlens.load(tmp_path / "run"), model)
    assert "run: the model is that of checkpoint-10, the last of 2 checkpoints" in caplog.text


def test_a_timm_model(tmp_path: Path) -> None:
    options = {key: value for key, value in tiny_timm.SMALL.items() if key != "num_classes"}
    save_for_hf(trained(), str(tmp_path / "base"), model_args={**options, "img_size": 32})
    import timm

    name = f"local-dir:{tmp_path / 'base'}"
    made = timm.create_model(name, pretrained=True, num_classes=5)
    model = adapted(made, target_modules=["qkv", "proj", "fc2"], modules_to_save=["head"])
    model.save_pretrained(tmp_path / "adapter")
    lens = classlens.load(name, checkpoint=tmp_path / "adapter", class_names=list("abcde"))
    assert_same(lens, model)
    adapted(timm.create_model(name, pretrained=True), target_modules=["qkv"]).save_pretrained(tmp_path / "no-head")
    sources: list[dict[str, Any]] = [{}, {"checkpoint": tmp_path / "no-head"}]
    for given in sources:  # timm would draw a head, another one at every load
        refused(partial(classlens.load, name, num_classes=6, **given), "num_classes is 6", "'head.weight'")


def test_a_torchvision_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from classlens.models import torchvision as library

    def make(_: str, __: str, options: dict[str, Any]) -> Any:
        return VisionTransformer(**{**tiny_torchvision.SMALL, "num_classes": options["num_classes"]}).eval()

    source = tiny_torchvision.build("plain").float()
    monkeypatch.setattr(library, "_build", make)
    monkeypatch.setattr(library, "_fetch", lambda *_: source.state_dict())
    started = make("", "", {"num_classes": 5})
    trunk = {name: value for name, value in source.state_dict().items() if "heads" not in name}
    started.load_state_dict(trunk, strict=False)
    made = copy.deepcopy(started)
    model = adapted(started, target_modules=["mlp.0", "mlp.3"], modules_to_save=["heads.head"])
    model.save_pretrained(tmp_path / "mlp")
    assert_same(classlens.load("torchvision:vit_b_16", checkpoint=tmp_path / "mlp"), model)
    adapted(made, target_modules=["self_attention"], modules_to_save=["heads.head"]).save_pretrained(
        tmp_path / "attention"
    )
    refused(
        lambda: classlens.load("torchvision:vit_b_16", checkpoint=tmp_path / "attention"),
        "uses nn.MultiheadAttention ('encoder.layers.encoder_layer_0.self_attention')",
        *MERGE,
    )


def config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}), encoding="utf-8")

    return change


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        state = load_file(folder / "adapter_model.safetensors")
        change(state)
        save_file(state, folder / "adapter_model.safetensors")

    return changed


PREFIX = "base_model.model.vit.layers.0.attention.o_proj"
MERGE = ["merge it with peft", "merge_adapters=True"]
SPOILED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "another kind": (config(peft_type="LOHA"), ["uses peft_type LOHA", *MERGE]),
    "a start that changes the base": (config(init_lora_weights="pissa"), ["init_lora_weights 'pissa'", *MERGE]),
    "an unknown setting": (config(use_something=True), ["uses use_something", *MERGE]),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), ["lacks its weights"]),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("["), ["of another form"]),
    "a pattern that is none": (config(alpha_pattern={"(": 3}), ["of another form"]),
    "patterns in a list": (config(alpha_pattern=[3]), ["of another form"]),
    "alpha as text": (config(lora_alpha="8"), ["of another form"]),
    "deep JSON": (lambda folder: (folder / "adapter_config.json").write_text("[" * 100_000), ["of another form"]),
    "rank 0": (
        tensors(
            lambda state: state.update(
                {f"{PREFIX}.lora_A.weight": torch.ones(0, 24), f"{PREFIX}.lora_B.weight": torch.ones(24, 0)}
            )
        ),
        ["no lora_A"],
    ),
    "a short magnitude": (
        tensors(lambda state: state.update({f"{PREFIX}.lora_magnitude_vector": torch.ones(3)})),
        ["lora_magnitude_vector of 3 values for 24 rows"],
    ),
    "half a pair": (tensors(lambda state: state.pop(f"{PREFIX}.lora_B.weight")), ["no lora_A", "layers.0.attention"]),
    "another width": (
        tensors(lambda state: state.update({f"{PREFIX}.lora_A.weight": torch.ones(2, 5)})),
        ["does not fit", "'vit.layers.0.attention.o_proj.weight' of shape [24, 5]", "has shape [24, 24]"],
    ),
    "another layer": (
        tensors(lambda state: state.update({"base_model.model.vit.extra.weight": torch.ones(2, 5)})),
        ["'vit.extra.weight'", "does not exist in the model", "the base model that it was trained on"],
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_folder_that_cannot_be_merged(kind: str, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    saved(base, folder)
    spoil, parts = SPOILED[kind]
    spoil(folder)
    refused(lambda: classlens.load(base, checkpoint=folder), str(folder), *parts)


def test_models_without_adapters(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    saved(base, folder)
    refused(lambda: classlens.load("builtin:cifar10", checkpoint=folder), "does not go with model 'builtin:cifar10'")
    config(base_model_name_or_path=None)(folder)
    refused(lambda: classlens.load(folder), "a base without a name", "give the base as the model")
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\ndef make(): pass\n", encoding="utf-8")
    config(base_model_name_or_path=f"{trap}:make")(folder)
    refused(lambda: classlens.load(folder), "give the base as the model")
    assert not (tmp_path / "marker").exists(), "no code runs that a file names"
