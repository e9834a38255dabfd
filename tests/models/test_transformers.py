"""From a folder, a name of the hub or a module of transformers to a lens, and what is said when it cannot."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import classlens
from classlens.errors import ClasslensError
from classlens.models import transformers as adapter
from classlens.models.adapter import adapter_of_name
from tests.refusals import refused

transformers: Any = pytest.importorskip("transformers")

NAMES = ["ant", "bee", "cow, moo", "dog", "emu"]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
VIT = {**SIZES, "intermediate_size": 40}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 49408}
SIGLIP = {"vision_config": VIT, "text_config": TEXT}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTForImageClassification": ("ViTConfig", VIT),
    "ViTMSNForImageClassification": ("ViTMSNConfig", VIT),
    "DeiTForImageClassification": ("DeiTConfig", VIT),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", VIT),
    "BeitForImageClassification": ("BeitConfig", {**VIT, "use_relative_position_bias": True}),
    "Dinov2ForImageClassification": ("Dinov2Config", SIZES),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", SIZES),
    "SiglipForImageClassification": ("SiglipConfig", SIGLIP),
}


def build(kind: str = "ViTForImageClassification", names: list[str] | None = None) -> Any:
    """A random model with class names of its own, every head and norm drawn anew."""
    config, options = KINDS[kind]
    labels = dict(enumerate(NAMES if names is None else names))
    model = getattr(transformers, kind)(getattr(transformers, config)(id2label=labels, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.2 * torch.randn(parameter.shape))
    return model.eval()


def processor(**options: Any) -> Any:
    half = [0.5, 0.4, 0.6]
    return transformers.ViTImageProcessor(
        **{"size": {"height": 16, "width": 16}, "image_mean": half, "image_std": half[::-1], **options}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What save_pretrained makes of a ViT and its image processor."""
    build().save_pretrained(tmp_path / "vit")
    processor().save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def edit(folder: Path, **values: Any) -> None:
    """Change the config; None takes a key out."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), **values}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8))


def tensor(values: Any) -> Tensor:
    return torch.from_numpy(values.values)


# Names


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "hf:google/vit", "./models/vit", "hf:vit"])
def test_claimed(name: str) -> None:
    assert adapter_of_name(name) is adapter.ADAPTER


@pytest.mark.parametrize(
    "name", ["vit", "vit_base_patch16_224", "hf-hub:timm/vit", "local-dir:a/b", "open_clip:a/b", "https://a/b", ""]
)
def test_not_claimed(name: str) -> None:
    assert not adapter.resolves(name)


def test_folders_are_claimed_by_their_config(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert adapter.resolves("vit")
    assert adapter.resolves(str(folder))
    assert not adapter.resolves("empty")
    assert not adapter.resolves("vit/model.safetensors"), "a file is a checkpoint of something else"
    assert classlens.load("vit").view.name == "vit"


# Folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_model_that_was_saved(kind: str, tmp_path: Path) -> None:
    source = build(kind)
    source.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    lens = classlens.load(str(tmp_path))
    assert type(lens.view.module).__name__ == kind
    assert lens.classes.names == tuple(NAMES)
    assert not lens.view.module.training
    trace = lens.trace(picture())
    with torch.no_grad():
        expected = source(processor()(images=picture(), return_tensors="pt")["pixel_values"]).logits
    torch.testing.assert_close(tensor(trace.model_logits), expected, rtol=0, atol=1e-5)


def test_pixels_are_those_of_the_processor_and_of_its_definition(folder: Path) -> None:
    lens = classlens.load(str(folder))
    found = lens.preprocessing(picture(), "p")
    assert torch.equal(found, processor()(images=picture(), return_tensors="pt")["pixel_values"][0])
    # Bilinear at 8 bits, then 0…1, then mean and standard deviation: within two levels of Pillow's.
    small = np.asarray(picture().resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    by_hand = (small - [0.5, 0.4, 0.6]) / [0.6, 0.4, 0.5]
    assert np.abs(found.permute(1, 2, 0).numpy() - by_hand).max() < 2.5 / 255 / 0.4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [60.0] * 3},
        {"image_mean": 0.3, "image_std": 0.7},
    ],
)
def test_normalization_is_undone(options: dict[str, Any], folder: Path) -> None:
    processor(**options).save_pretrained(folder)
    lens = classlens.load(str(folder))
    square = picture().crop((0, 0, 16, 16))
    seen = lens.trace(square).picture(0)
    assert np.abs(np.asarray(seen, dtype=int) - np.asarray(square, dtype=int)).max() <= 1


def test_no_processor_and_a_broken_one(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    for content in (None, "{", '{"image_processor_type": "NoSuchProcessor"}'):
        file.unlink() if content is None else file.write_text(content, encoding="utf-8")
        refused(partial(classlens.load(str(folder)).trace, picture()), "transform=")
    given = classlens.load(str(folder), transform=lambda _: torch.zeros(3, 16, 16))
    assert len(given.trace(picture())) == 1


def test_placeholders_are_no_class_names(tmp_path: Path) -> None:
    build(names=[f"LABEL_{index}" for index in range(3)]).save_pretrained(tmp_path)
    assert classlens.load(str(tmp_path)).classes.names == ("class 0", "class 1", "class 2")
    assert classlens.load(str(tmp_path), class_names=["a", "b", "c"]).classes.names == ("a", "b", "c")


def test_half_precision_weights_are_read_in_float32(tmp_path: Path) -> None:
    source = build().half()
    source.save_pretrained(tmp_path)
    module = classlens.load(str(tmp_path)).view.module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    torch.testing.assert_close(module.classifier.weight, source.classifier.weight.float())


def test_random_weights_from_the_config_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    lens = classlens.load(str(folder), pretrained=False)
    assert lens.classes.names == tuple(NAMES)
    assert classlens.load(str(folder), pretrained=False, num_classes=9).classes.names[8] == "class 8"
    assert not lens.view.module.training


def test_a_config_that_names_no_architecture(folder: Path) -> None:
    edit(folder, architectures=None)
    assert type(classlens.load(str(folder)).view.module).__name__ == "ViTForImageClassification"


def test_a_subfolder(folder: Path) -> None:
    assert classlens.load(str(folder.parent), subfolder="vit").classes.names == tuple(NAMES)


def test_transformers_is_as_talkative_as_before(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    classlens.load(str(folder))
    edit(folder, architectures=["ViTModel"])
    with pytest.raises(ClasslensError):
        classlens.load(str(folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    # classlens's own first line is printed where a command ran before in this process.
    assert [line for line in "".join(capfd.readouterr()).splitlines() if "2×2 tokens" not in line] == []


# Weights of their own


OLD = {
    "vit.layers": "vit.encoder.layer",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def of_older_release(name: str) -> str:
    for new, old in OLD.items():
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "net.backbone."])
def test_a_checkpoint_of_a_training_framework(prefix: str, older: bool, tmp_path: Path) -> None:
    """On the config of the base, which has no head; the number of classes is that of the file."""
    source, other = build(), build(names=["a", "b"])
    transformers.ViTModel(other.config).save_pretrained(tmp_path / "base")
    state = {prefix + (of_older_release(name) if older else name): value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 0.1}}, tmp_path / "last.ckpt")
    lens = classlens.load(tmp_path / "base", checkpoint=tmp_path / "last.ckpt")
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(tensor(lens.trace(pixels).model_logits), source(pixels).logits)


def test_a_checkpoint_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    state = build().state_dict()
    del state["vit.layers.1.mlp.fc2.weight"]
    torch.save(state, tmp_path / "last.ckpt")
    refused(lambda: classlens.load(folder, checkpoint=tmp_path / "last.ckpt"), "lack 1 tensors", "mlp.fc2.weight")


def test_shards(folder: Path, tmp_path: Path) -> None:
    """As a folder of transformers, and as weights beside another config."""
    source = build()
    source.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    index = tmp_path / "shards" / "model.safetensors.index.json"
    pixels = torch.randn(2, 3, 16, 16)
    for lens in (classlens.load(tmp_path / "shards"), classlens.load(folder, checkpoint=tmp_path / "shards")):
        with torch.no_grad():
            assert torch.equal(tensor(lens.trace(pixels).model_logits), source(pixels).logits)
    content = json.loads(index.read_text(encoding="utf-8"))
    file = content["weight_map"]["classifier.weight"]
    (index.parent / file).rename(tmp_path / file)
    refused(lambda: classlens.load(tmp_path / "shards"), f"{file!r} is missing")
    content["weight_map"]["classifier.weight"] = f"../{file}"
    index.write_text(json.dumps(content), encoding="utf-8")
    refused(lambda: classlens.load(tmp_path / "shards"), f"'../{file}'", "in its own folder")


# A checkpoint is not trusted


def as_pickle(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def test_a_pickle_of_tensors_is_read(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    as_pickle(folder, state)
    module: Any = classlens.load(str(folder)).view.module
    assert torch.equal(module.classifier.weight, state["classifier.weight"])


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_a_pickle_of_more_than_tensors_is_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    as_pickle(folder, {**state, "evil": Evil(folder / "ran")})
    refused(lambda: classlens.load(str(folder)), "pickled Python objects", "save_pretrained")
    assert not (folder / "ran").exists()


def test_safetensors_are_taken_where_both_are_there(folder: Path) -> None:
    torch.save({"evil": Evil(folder / "ran")}, folder / "pytorch_model.bin")
    classlens.load(str(folder))
    assert not (folder / "ran").exists()


def test_code_in_a_checkpoint_is_not_run(folder: Path) -> None:
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')", encoding="utf-8")
    code = {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Model"}
    edit(folder, auto_map=code)
    mine = {"auto_map": {"AutoImageProcessor": "mine.Processor"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(mine), encoding="utf-8")
    assert classlens.load(str(folder)).classes.names == tuple(NAMES)
    edit(folder, model_type="mine")
    refused(lambda: classlens.load(str(folder)), "config.json", "ViTForImageClassification")
    assert not (folder / "ran").exists()


def test_an_attention_kernel_named_in_a_config_is_not_fetched(folder: Path) -> None:
    for key in ("attn_implementation", "_attn_implementation"):
        edit(folder, **{key: "somebody/kernel"})
        assert classlens.load(str(folder)).view.module.config._attn_implementation == "sdpa"


# What cannot be read


def test_weights_that_are_missing(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    headless = {key: value for key, value in state.items() if not key.startswith("classifier")}
    save_file(headless, folder / "model.safetensors", metadata={"format": "pt"})
    refused(
        lambda: classlens.load(str(folder)), "lack 2 tensors", "first 'classifier.weight'", "ViTForImageClassification"
    )


def test_weights_of_another_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["classifier.weight"] = torch.zeros(9, 24)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(lambda: classlens.load(str(folder)), "'classifier.weight'", "[9, 24]", "[5, 24]", "config.json")


def test_weights_that_take_no_part_may_be_missing(tmp_path: Path) -> None:
    build("Dinov2ForImageClassification").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["dinov2.embeddings.mask_token"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert classlens.load(str(tmp_path)).classes.names == tuple(NAMES)


def test_a_model_without_its_classification_head(tmp_path: Path) -> None:
    build().vit.save_pretrained(tmp_path)
    refused(lambda: classlens.load(str(tmp_path)), "a ViTModel", "ViTForImageClassification", "head")


def test_a_model_that_is_not_read(tmp_path: Path) -> None:
    config = transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1], num_heads=[1], window_size=2)
    transformers.SwinForImageClassification(config).save_pretrained(tmp_path)
    refused(lambda: classlens.load(str(tmp_path)), "SwinForImageClassification", *KINDS)


def test_a_model_of_timm_is_sent_there(tmp_path: Path) -> None:
    ours = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "num_features": 192}
    transformers.TimmWrapperConfig.from_dict({**ours, "pretrained_cfg": {"tag": ""}}).save_pretrained(tmp_path)
    refused(lambda: classlens.load(str(tmp_path)), "timm", "local-dir:")
    timm = {**ours, "pretrained_cfg": {"input_size": [3, 224, 224], "num_classes": 5}}
    (tmp_path / "config.json").write_text(json.dumps(timm), encoding="utf-8")
    refused(lambda: classlens.load(str(tmp_path)), "timm", "local-dir:")


def test_quantized_weights(folder: Path) -> None:
    edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(lambda: classlens.load(str(folder)), "quantized", "ViTForImageClassification")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_type": "no-such-model"}', '{"model_type": "vit", "hidden_size": "x"}']
)
def test_a_config_that_is_broken(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    refused(lambda: classlens.load(str(folder)), "config.json", str(folder))


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(lambda: classlens.load(str(folder)), "no config.json", "ViTForImageClassification")


def test_no_weights_and_half_of_them(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused(lambda: classlens.load(str(folder)), "cannot be read", "model.safetensors")
    file.unlink()
    refused(lambda: classlens.load(str(folder)), "cannot be read", "model.safetensors")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"img_size": 32}, "img_size"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"num_classes": 3}, "num_classes is 3"),
    ],
)
def test_options_that_do_not_go_with_it(options: dict[str, Any], part: str, folder: Path) -> None:
    refused(lambda: classlens.load(str(folder), **options), part, str(folder))


def test_the_number_of_classes_may_be_said(folder: Path) -> None:
    assert classlens.load(str(folder), num_classes=5).view.num_classes == 5


@pytest.mark.parametrize("name", ["somebody/some-vit", "hf:somebody/some-vit"])
def test_the_hub_without_a_network(name: str) -> None:
    refused(
        lambda: classlens.load(name),
        repr(name),
        "config.json",
        "model.safetensors",
        "https://huggingface.co/somebody/some-vit ",
        "folder",
    )


@pytest.mark.parametrize("name", ["models/of/mine", "./vit", "/no/such/folder", "hf:vit", "hf:"])
def test_neither_a_folder_nor_a_name(name: str) -> None:
    refused(lambda: classlens.load(name), repr(name), "folder", "owner/name")


def test_transformers_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(lambda: classlens.load(str(folder)), "pip install 'classlens[transformers]'")


# Modules that a user holds


def test_a_module_knows_its_classes_and_the_processor_beside_its_weights(folder: Path) -> None:
    held = transformers.ViTForImageClassification.from_pretrained(folder)
    lens = classlens.load(held)
    assert lens.view.module is held
    assert lens.classes.names == tuple(NAMES)
    assert torch.equal(
        lens.preprocessing(picture(), "p"), processor()(images=picture(), return_tensors="pt")["pixel_values"][0]
    )


def test_a_module_made_by_hand_has_no_processor() -> None:
    lens = classlens.load(build())
    assert lens.classes.names == tuple(NAMES)
    refused(lambda: lens.trace(picture()), "transform=")


def test_a_module_from_the_hub_that_is_not_on_this_machine_any_more() -> None:
    module = build()
    module.name_or_path = module.config.name_or_path = "somebody/some-vit"
    assert classlens.load(module).preprocessing.transform is None


def test_class_names_that_are_not_of_the_head_are_left_alone() -> None:
    module = build()
    module.classifier = torch.nn.Linear(24, 8)
    assert classlens.load(module).classes.names == tuple(f"class {index}" for index in range(8))


@pytest.mark.parametrize(
    ("problem_type", "given", "expected"),
    [
        (None, None, "single_label_classification"),
        ("multi_label_classification", None, "multi_label_classification"),
        ("multi_label_classification", False, "single_label_classification"),
        ("regression", None, "regression"),
        ("regression", True, "multi_label_classification"),
        ("something", None, "single_label_classification"),
    ],
)
def test_the_config_of_transformers_says_it(problem_type: str | None, given: bool | None, expected: str) -> None:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    config.num_labels = 3
    # transformers does not set a problem type that it does not know.
    object.__setattr__(config, "problem_type", problem_type)
    module = transformers.ViTForImageClassification(config).eval()
    assert classlens.load(module, multi_label=given).view.problem_type == expected
