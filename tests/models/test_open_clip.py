"""Particulars of OpenCLIP: prompts, text embeddings, towers of timm, names and files. The rest is in the contract."""

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
from safetensors.torch import save_file
from torch import Tensor, nn

import classlens
from classlens.models import open_clip as adapter
from classlens.models.open_clip import classifier
from classlens.models.open_clip_text import ZeroShotClassifier
from tests import zoo
from tests.models.oracles import pixels, randomize
from tests.refusals import refused

open_clip = pytest.importorskip("open_clip")

from tests.models.tiny_open_clip import (  # noqa: E402
    NAMES,
    REFUSED,
    TEMPLATES,
    TEXT,
    VARIANTS,
    VISION,
    build,
    own_logits,
    tokenizer,
    zero_shot,
)

TARGET = torch.tensor([2, 4, 0])


@pytest.mark.parametrize("name", ["cls", "avg_norm_after_pool", "logit_bias", "scale_of_one", "not_square"])
def test_one_prompt_a_class_gives_get_logits(name: str) -> None:
    model, x = build(name), pixels(3, VARIANTS[name].size)
    prompts = [f"a photo of a {word}." for word in NAMES]
    with torch.no_grad():
        expected, _ = model.get_logits(x, tokenizer()(prompts))
    lens = classlens.load(classifier(model, tokenizer(), prompts, ["{}"]))
    last = lens.trace(x).recording.state("resid_post", 2, slice(None))
    torch.testing.assert_close(lens.view.logits(last), expected, rtol=0, atol=1e-11)
    default = classlens.load(classifier(model, tokenizer(), NAMES))
    assert torch.equal(default.view.space.weight, lens.view.space.weight)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["layer_scale", "tokens_first"])
def test_a_tokenizer_that_fails_leaves_nothing_behind(name: str) -> None:
    model = build(name, torch.float32)
    model.train()
    model.visual.ln_post.eval()
    before = zoo.snapshot(model)
    assert classifier(model, tokenizer(), NAMES, TEMPLATES).training, "as the model itself"
    assert zoo.snapshot(model) == before

    def fail(_: list[str]) -> Tensor:
        assert not model.training, "text is embedded without dropout"
        raise Stopped

    with pytest.raises(Stopped):
        classifier(model, fail, NAMES)
    assert zoo.snapshot(model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_as_the_library_makes_it(dtype: torch.dtype) -> None:
    model = open_clip.CLIP(8, open_clip.CLIPVisionCfg(**VISION), open_clip.CLIPTextCfg(**TEXT), cast_dtype=dtype).eval()
    randomize(model)
    open_clip.convert_weights_to_lp(model, dtype)
    lens = classlens.load(classifier(model, tokenizer(), NAMES, TEMPLATES))
    trace = lens.trace(pixels(3, (32, 32), torch.float32))
    last = trace.recording.state("resid_post", 2, slice(None))
    assert last.dtype == dtype
    expected = own_logits(model, pixels(3, (32, 32), dtype)).float()
    size = expected.abs().max()
    assert (lens.view.logits(last) - expected).abs().max() < 8 * torch.finfo(dtype).eps * size
    assert trace.explain(TARGET).shape == (3, 3, 2, 16)


# Towers of timm


@pytest.mark.parametrize(
    "options",
    [
        {"timm_pool": "token", "timm_proj": None},  # as EVA-02: timm's own head makes the features
        {"timm_pool": "token", "timm_proj": "none"},
        {"timm_pool": "token", "timm_proj": "linear", "timm_proj_bias": True},
        {"timm_pool": "avg", "timm_proj": "linear"},
        {"timm_pool": "map", "timm_proj": "none"},  # as SigLIP
    ],
)
def test_a_tower_of_timm(options: dict[str, Any]) -> None:
    vision = open_clip.CLIPVisionCfg(timm_model_name="test_vit", image_size=160, **options)
    width = 64 if options["timm_proj"] == "none" else 8
    model: Any = open_clip.CustomTextCLIP(width, vision, open_clip.CLIPTextCfg(**TEXT), init_logit_bias=-10.0)
    randomize(model)
    model.double().eval()
    trunk, x = model.visual.trunk, pixels(2, (160, 160))
    before, random = zoo.snapshot(model), torch.get_rng_state()
    module = classifier(model, tokenizer(), NAMES, TEMPLATES)
    lens = classlens.load(module)
    trace = lens.trace(x)
    trace.explain(TARGET[:2])
    assert zoo.snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    states = trunk.forward_intermediates(x, intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC")
    for block, (tokens, prefix) in enumerate(states):
        found = trace.recording.state("resid_post", block, slice(None))
        torch.testing.assert_close(found, torch.cat([prefix, tokens], dim=1), rtol=0, atol=1e-12)
    logits = own_logits(model, x).detach()
    torch.testing.assert_close(lens.view.logits(found), logits, rtol=0, atol=1e-11)
    assert lens.view.library == "open_clip"
    if options["timm_pool"] == "map":
        assert lens.view.pooling == "map"
        return
    parts = trace.attribution(TARGET[:2])
    assert zoo.snapshot(model) == before
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(summed, logits.gather(1, TARGET[:2, None])[:, 0], rtol=0, atol=1e-10)


# Names, weights and files


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """An architecture of that name in the library's registry, with weights that carry a tag."""
    config = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-8", config)
    tag = {
        "url": "",
        "hf_hub": "somebody/tiny-clip/",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "quick_gelu": True,
    }
    tags = {"first_s1b": tag, "second_s2b": {**tag, "hf_hub": "somebody/tiny-clip/second.bin", "quick_gelu": False}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny-8", tags)
    return "open_clip:ViT-tiny-8"


def trained(**options: Any) -> Any:
    model = open_clip.create_model("ViT-tiny-8", **options)
    randomize(model)
    return model.eval()


def assert_same(lens: Any, model: Any, prompts: list[str]) -> None:
    x = pixels(2, (32, 32), torch.float32)
    with torch.no_grad():
        expected, _ = model.get_logits(x, tokenizer()(prompts))
        torch.testing.assert_close(lens.view.run(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["checkpoint", "in the name", "state_dict", "with the tag", "with its tag's file"])
def test_weights_from_a_file(tiny: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = form.startswith("with")  # the tag says how its weights were trained
    model = trained(force_quick_gelu=quick)
    file = tmp_path / "weights.pt"
    torch.save(model.state_dict() if form != "state_dict" else {"epoch": 1, "state_dict": model.state_dict()}, file)
    name = tiny
    options: dict[str, Any] = {"checkpoint": file}
    if form == "in the name":
        name, options = f"{tiny}/{file}", {}
    elif form == "with the tag":
        name = f"{tiny}/first-s1b"
    elif form == "with its tag's file":
        name, options = f"{tiny}/first_s1b", {}
        fetch = open_clip.pretrained.download_pretrained_from_hf
        monkeypatch.setattr(
            open_clip.pretrained,
            "download_pretrained_from_hf",
            lambda model_id, **_: str(file) if model_id == "somebody/tiny-clip" else fetch(model_id),
        )
    lens = classlens.load(name, class_names=NAMES, **options)
    assert lens.classes.names == tuple(NAMES)
    assert not lens.view.module.training
    assert_same(lens, model, [f"a photo of a {word}." for word in NAMES])
    assert lens.preprocessing.mean == pytest.approx((0.1, 0.2, 0.3) if quick else open_clip.OPENAI_DATASET_MEAN)
    assert lens.preprocessing(Image.new("RGB", (50, 40)), "photo").shape == (3, 32, 32)


@pytest.mark.parametrize("form", ["checkpoint", "in the name", "folder"])
def test_another_size_than_that_of_the_weights(
    tiny: str, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenCLIP resamples position embeddings; that of a file's own size are taken as they are."""
    size = 32 if form == "folder" else 48  # the architecture's, or that of the file
    model = trained(**({} if form == "folder" else {"force_image_size": size}))
    file = tmp_path / "open_clip_model.safetensors"
    save_file(model.state_dict(), file)
    config = {"model_cfg": open_clip.get_model_config("ViT-tiny-8"), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    names = {"checkpoint": tiny, "in the name": f"{tiny}/{file}", "folder": f"open_clip:local-dir:{tmp_path}"}
    load: Any = partial(classlens.load, names[form], class_names=NAMES)
    if form == "checkpoint":
        load = partial(load, checkpoint=file)
    own = load()
    assert own.view.input_size == (size, size)
    assert torch.equal(own.view.module.model.visual.positional_embedding, model.visual.positional_embedding)
    load(img_size=64, **({} if form == "checkpoint" else {"pretrained": False}))
    assert ("resampled" in caplog.text) == (form == "checkpoint"), "blank weights are of any size"
    load(img_size=64)
    side = size // 8
    assert f"position embeddings were resampled from {side}×{side} to 8×8 tokens" in caplog.text


def test_classes_templates_and_prompts(tiny: str, tmp_path: Path) -> None:
    load = partial(classlens.load, tiny, pretrained=False)
    lens = load(prompts=["a cat asleep", "a dog"])
    assert lens.classes.names == ("a cat asleep", "a dog")
    model: Any = lens.view.module.model
    assert_same(lens, model, ["a cat asleep", "a dog"])

    (tmp_path / "prompts.txt").write_text("a cat asleep\na dog\n", encoding="utf-8")
    lens = load(prompts=tmp_path / "prompts.txt", class_names=["cat", "dog"])
    assert lens.classes.names == ("cat", "dog")
    assert_same(lens, lens.view.module.model, ["a cat asleep", "a dog"])

    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES), encoding="utf-8")
    given: list[Any] = [TEMPLATES, tmp_path / "templates.txt", [partial(str.replace, t, "{}") for t in TEMPLATES]]
    for templates in given:
        lens = load(class_names=NAMES, templates=templates)
        x = pixels(2, (32, 32), torch.float32)
        own = own_logits(lens.view.module.model, x)
        torch.testing.assert_close(lens.view.run(x), own, rtol=0, atol=1e-5)

    refused(lambda: load(), tiny, "class_names=[...]", "prompts=[...]")
    refused(lambda: load(prompts=["a"], class_names=["a", "b"]), "number of class_names is 2")
    refused(lambda: load(class_names=["a", "b"], num_classes=3), "num_classes is 3")
    refused(lambda: load(class_names=["a"], templates=["a photo"]), "'a photo' has no {}")


def test_a_folder_with_its_configuration(tmp_path: Path) -> None:
    config = {
        "model_cfg": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {"std": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    name = f"open_clip:local-dir:{tmp_path}"
    refused(lambda: classlens.load(name, class_names=NAMES), "local-dir", "cannot be built")
    model = build("cls", torch.float32)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    lens = classlens.load(name, class_names=NAMES)
    assert_same(lens, model, [f"a photo of a {word}." for word in NAMES])
    assert lens.preprocessing.std == pytest.approx((0.5, 0.5, 0.5))
    refused(lambda: classlens.load(name, class_names=NAMES, checkpoint="x.pt"), "leave out checkpoint")
    refused(lambda: classlens.load("open_clip:local-dir:/none", class_names=NAMES), "local-dir:/none", "not found")


def test_weights_that_are_not_here(tiny: str) -> None:
    """The library's hub client is told to stay offline (see conftest)."""
    for tag, file in (("first_s1b", "open_clip_model.safetensors"), ("second_s2b", "second.bin")):
        refused(
            partial(classlens.load, f"{tiny}/{tag}", class_names=NAMES),
            f"'{tiny}/{tag}'",
            f"{file} of https://huggingface.co/somebody/tiny-clip",
            "checkpoint=FILE",
        )
    refused(lambda: classlens.load("open_clip:hf-hub:somebody/x", class_names=NAMES), "'open_clip:hf-hub:somebody/x'")


def test_names_that_are_not_known(tiny: str, tmp_path: Path) -> None:
    refused(lambda: classlens.load("open_clip:ViT-B-33/openai", class_names=NAMES), "did you mean 'ViT-B-32'")
    refused(lambda: classlens.load("open_clip:qqq", class_names=NAMES), "open_clip.list_models()")
    refused(lambda: classlens.load(f"{tiny}/first_s2b", class_names=NAMES), "'first_s2b'", "did you mean 'first_s1b'")
    refused(lambda: classlens.load(f"{tiny}/{tmp_path / 'no.pt'}", class_names=NAMES), "neither a tag", "nor a file")
    refused(lambda: classlens.load(tiny, class_names=NAMES), "names no weights", "first_s1b, second_s2b")
    refused(lambda: classlens.load("open_clip:ViT-B-32-256x", class_names=NAMES), "'ViT-B-32-256'")
    for name in ("RN50/openai", "coca_ViT-B-32/laion2b_s13b_b90k"):
        # Before anything of theirs is fetched.
        refused(partial(classlens.load, f"open_clip:{name}", class_names=NAMES), name, adapter.SUPPORTED)


def test_files_that_do_not_fit(tiny: str, tmp_path: Path) -> None:
    load = partial(classlens.load, tiny, class_names=NAMES)
    file = tmp_path / "weights.pt"
    refused(lambda: load(checkpoint=file), "weights.pt", "is not a file")
    torch.save({"visual.proj": torch.zeros(3)}, file)
    refused(lambda: load(checkpoint=file), "weights.pt", "does not fit", f"'{tiny}'")
    file.write_bytes(b"PK broken")
    refused(lambda: load(checkpoint=file), "weights.pt", "cannot be read")
    torch.save(trained(), file)
    refused(lambda: load(checkpoint=file), "weights.pt", "a whole pickled model")
    refused(lambda: load(pretrained=False, banana=3), "banana")


def test_a_tokenizer_that_is_not_here(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": {**TEXT, "hf_tokenizer_name": "somebody/words"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-8", config)
    refused(lambda: classlens.load(tiny, class_names=NAMES, pretrained=False), "tokenizer", tiny, "classifier(")


def test_the_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    refused(lambda: classlens.load("open_clip:ViT-B-32/openai", class_names=NAMES), "pip install classlens[open-clip]")


# Modules that the user holds


def test_a_model_without_classes() -> None:
    model = build("cls")
    refused(lambda: classlens.load(model), "'CLIP'", "classlens.models.open_clip.classifier(")
    refused(lambda: classlens.load(model.visual), "'VisionTransformer'", "classlens.models.open_clip.classifier(")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_text_is_embedded(name: str) -> None:
    make, reason = REFUSED[name]
    model = make()

    def fail(_: list[str]) -> Tensor:
        raise Stopped

    refused(lambda: classifier(model, fail, NAMES), f"'{type(model).__name__}'", reason)


def test_no_image_tower() -> None:
    refused(lambda: classifier(nn.Linear(2, 2), tokenizer(), NAMES), "'Linear'", "NoneType", adapter.SUPPORTED)


def test_what_is_no_list() -> None:
    refused(lambda: classifier(build("cls"), tokenizer(), "cat"), "class_names are 'cat'")
    refused(lambda: classifier(build("cls"), tokenizer(), NAMES, []), "templates are empty")


def test_a_forward_of_one_s_own_is_noticed() -> None:
    class Louder(ZeroShotClassifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return 2 * super().forward(pixels)

    made = zero_shot("cls")
    refused(lambda: classlens.load(Louder(made.model, made.text, NAMES)), "Louder", "misses the model's logits")
