"""OpenCLIP as a zero-shot classifier: the laws and the explanation against the library's own models, and names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import classlens
from classlens.core.attention import LOSSES, Loss
from classlens.errors import ClasslensError
from classlens.forward.hooks import watching
from classlens.forward.run import evaluating
from classlens.models import open_clip as adapter
from classlens.models.open_clip import ZeroShotClassifier, classifier
from tests.models.multihead import attention_gradient, pixels, randomize, seen, snapshot

open_clip = pytest.importorskip("open_clip")

NAMES = ["tabby cat", "dog", "sea urchin", "tram", "rice"]
TEMPLATES = ["a photo of a {}.", "a drawing of the {}.", "{}"]
TARGET = torch.tensor([2, 4, 0])
VISION: dict[str, Any] = {"layers": 3, "width": 16, "head_width": 8, "mlp_ratio": 2, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"context_length": 16, "width": 16, "heads": 2, "layers": 1}


@dataclass(frozen=True)
class Variant:
    vision: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    kind: str = "CLIP"
    grid: tuple[int, int] = (4, 4)
    pooled: tuple[int, ...] = (0,)
    tokens_first: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return (8 * self.grid[0], 8 * self.grid[1])


_ALL = tuple(range(1, 17))
VARIANTS = {
    "cls": Variant(),
    "layer_scale": Variant({"ls_init_value": 0.1}),
    "no_ln_pre": Variant({"no_ln_pre": True}),
    "odd_heads": Variant({"width": 24}),
    "wide_eps": Variant({"norm_kwargs": {"eps": 0.3}}),
    "not_square": Variant({"image_size": (24, 16)}, grid=(3, 2)),
    "quick_gelu": Variant(model={"quick_gelu": True}),
    "avg": Variant({"pool_type": "avg"}, pooled=_ALL),
    "avg_norm_after_pool": Variant({"pool_type": "avg", "final_ln_after_pool": True}, pooled=_ALL),
    "patch_dropout": Variant({"patch_dropout": 0.5}),
    "logit_bias": Variant(model={"init_logit_bias": -10.0}),
    "scale_of_one": Variant(model={"init_logit_bias": -10.0, "nonscalar_logit_scale": True}),
    "own_text_tower": Variant(kind="CustomTextCLIP"),
    "tokens_first": Variant({"ls_init_value": 0.1}, tokens_first=True),
}
# One of each kind, for tests that need not see every variant.
KINDS = ("layer_scale", "avg", "avg_norm_after_pool", "logit_bias", "tokens_first")


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A CLIP model as a user would hold it."""
    variant = VARIANTS[name]
    vision = open_clip.CLIPVisionCfg(**{**VISION, **variant.vision})
    kind = getattr(open_clip, variant.kind)
    model: Any = kind(8, vision_cfg=vision, text_cfg=open_clip.CLIPTextCfg(**TEXT), **variant.model)
    if variant.tokens_first:
        transformer = open_clip.transformer.Transformer
        model.visual.transformer = transformer(16, 3, 2, 2, ls_init_value=0.1, batch_first=False)
    randomize(model)
    return model.to(dtype).eval()


@cache
def tokenizer() -> Callable[..., Tensor]:
    return open_clip.SimpleTokenizer(context_length=TEXT["context_length"])  # type: ignore[no-any-return]


def zero_shot(name: str, dtype: torch.dtype = torch.float64) -> ZeroShotClassifier:
    return classifier(build(name, dtype), tokenizer(), NAMES, TEMPLATES)


def own_logits(model: Any, x: Tensor) -> Tensor:
    """The recipe of CLIP's authors, one prompt at a time, with the model's own encoders."""
    rows = []
    with torch.no_grad():
        for name in NAMES:
            features = [model.encode_text(tokenizer()([template.replace("{}", name)]))[0] for template in TEMPLATES]
            mean = sum(feature / feature.norm() for feature in features) / len(features)
            rows.append(mean / mean.norm())
        image = model.encode_image(x)
        image = image / image.norm(dim=-1, keepdim=True)
        logits: Tensor = model.logit_scale.exp() * image @ torch.stack(rows).T
        return logits if model.logit_bias is None else logits + model.logit_bias


def refused(call: Callable[[], object], *parts: str) -> None:
    """The call raises one sentence on one line that holds the parts."""
    with pytest.raises(ClasslensError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message, "more than one sentence"
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", VARIANTS)
def test_hidden_states_and_logits_are_the_model_s_own(name: str) -> None:
    variant, module = VARIANTS[name], zero_shot(name)
    x = pixels(3, variant.size)
    expected = module.model.visual.forward_intermediates(x, output_fmt="NLC", output_extra_tokens=True)
    lens = classlens.load(module)
    assert lens.checks.law1 < 1e-14
    assert lens.classes.names == tuple(NAMES)
    assert lens.view.prefix == ("cls",)
    assert lens.view.tokens(variant.size).grid == variant.grid
    assert range(len(variant.pooled) + 1)[lens.view.pooled] == range(variant.pooled[0], variant.pooled[-1] + 1)
    recording = lens.trace(x).recording
    for block in range(3):
        found = recording.state("resid_post", block, slice(None))
        torch.testing.assert_close(found[:, :1], expected["image_intermediates_prefix"][block], rtol=0, atol=1e-12)
        torch.testing.assert_close(found[:, 1:], expected["image_intermediates"][block], rtol=0, atol=1e-12)
    logits = own_logits(module.model, x)
    assert (logits - logits.mean(dim=1, keepdim=True)).abs().max() > 0.2
    torch.testing.assert_close(lens.view.logits(found), logits, rtol=0, atol=1e-11)
    torch.testing.assert_close(recording.logits, logits, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(lens.trace(x).predictions, logits.argmax(dim=1))


@pytest.mark.parametrize("name", ["cls", "avg_norm_after_pool", "logit_bias", "scale_of_one", "own_text_tower"])
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


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_reproduces_what_the_heads_add(name: str) -> None:
    module, x = zero_shot(name), pixels(3, VARIANTS[name].size)
    visual: Any = module.model.visual
    view = classlens.load(module).view
    found: dict[str, list[Tensor]] = {"attention": [], "values": [], "attn_out": []}
    receivers = {kind: (lambda _, passing, kept=kept: kept.append(passing)) for kind, kept in found.items()}
    blocks = visual.transformer.resblocks
    with evaluating(module), view.unfused(), watching(view, receivers), seen([block.ln_1 for block in blocks]) as taken:
        module(x)
    for block, attention, values, added, inputs in zip(blocks, *found.values(), taken, strict=True):
        with torch.no_grad():
            own = block.attn(inputs, inputs, inputs, need_weights=True, average_attn_weights=False)
            made = block.ls_1(block.attn.out_proj((attention @ values).transpose(1, 2).flatten(2)))
        torch.testing.assert_close(attention, own[1], rtol=0, atol=1e-13)
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones_like(attention[..., 0]), rtol=0, atol=1e-13)
        torch.testing.assert_close(made, added, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_parts_add_up_to_the_logit(name: str, dtype: torch.dtype, tolerance: float) -> None:
    module, x = zero_shot(name, dtype), pixels(3, VARIANTS[name].size, dtype)
    parts = classlens.load(module).trace(x).attribution(TARGET)
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    own = own_logits(module.model, x).gather(1, TARGET[:, None])[:, 0]
    np.testing.assert_allclose(summed, own, rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_explanation_is_the_gradient_through_the_model(name: str, loss: Loss) -> None:
    variant, module = VARIANTS[name], zero_shot(name)
    model: Any = module.model
    x = pixels(3, variant.size)

    def class_logits(token: Tensor) -> Tensor:
        cosines = F.normalize(model.visual.ln_post(token) @ model.visual.proj, dim=-1) @ module.text.T
        logits: Tensor = cosines * model.logit_scale.exp()
        return logits if model.logit_bias is None else logits + model.logit_bias

    expected = attention_gradient(
        lambda: model.encode_image(x),
        [block.ls_1 for block in model.visual.transformer.resblocks],
        class_logits,
        TARGET,
        loss=loss,
        pooled=variant.pooled,
        batch_first=not variant.tokens_first,
    )[..., 1:]
    assert expected.abs().amax(dim=(0, 2, 3)).min() > 1e-4, "every block must have something to agree on"
    found = classlens.load(module).trace(x).explain(TARGET, loss=loss)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-11)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_left_behind(name: str) -> None:
    model, x = build(name, torch.float32), pixels(3, VARIANTS[name].size, torch.float32)
    model.train()
    model.visual.ln_post.eval()
    for parameter in model.visual.transformer.resblocks[0].parameters():
        parameter.requires_grad_(False)

    def output() -> Tensor:
        with evaluating(model):
            features: Tensor = model.encode_image(x)
        return features

    before, features = snapshot(model), output()
    module = classifier(model, tokenizer(), NAMES, TEMPLATES)
    lens = classlens.load(module)
    trace = lens.trace(x)
    trace.attribution(TARGET)
    trace.explain(TARGET)

    def stop(*_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped), evaluating(module), lens.view.unfused(), watching(lens.view, {"attention": stop}):
        module(x)
    assert module.training, "as the model itself"
    assert snapshot(model) == before
    assert torch.equal(output(), features)

    def fail(_: list[str]) -> Tensor:
        assert not model.training, "text is embedded without dropout"
        raise Stopped

    with pytest.raises(Stopped):
        classifier(model, fail, NAMES)
    assert snapshot(model) == before


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
    before, random = snapshot(model), torch.get_rng_state()
    module = classifier(model, tokenizer(), NAMES, TEMPLATES)
    lens = classlens.load(module)
    trace = lens.trace(x)
    trace.explain(TARGET[:2])
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    states = trunk.forward_intermediates(x, intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC")
    for block, (tokens, prefix) in enumerate(states):
        found = trace.recording.state("resid_post", block, slice(None))
        torch.testing.assert_close(found, torch.cat([prefix, tokens], dim=1), rtol=0, atol=1e-12)
    logits = own_logits(model, x)
    torch.testing.assert_close(lens.view.logits(found), logits, rtol=0, atol=1e-11)
    assert lens.view.library == "open_clip"
    if options["timm_pool"] == "map":
        assert lens.view.pooling == "map"
        return
    parts = trace.attribution(TARGET[:2])
    assert snapshot(model) == before
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
    refused(lambda: load(checkpoint=file), "weights.pt", "pickled Python objects")
    refused(lambda: load(pretrained=False, banana=3), "banana")


def test_a_tokenizer_that_is_not_here(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": {**TEXT, "hf_tokenizer_name": "somebody/words"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-8", config)
    refused(lambda: classlens.load(tiny, class_names=NAMES, pretrained=False), "tokenizer", tiny, "classifier(")


def test_the_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    refused(lambda: classlens.load("open_clip:ViT-B-32/openai", class_names=NAMES), "pip install classlens[open-clip]")


@pytest.mark.slow
def test_a_real_architecture() -> None:
    lens = classlens.load("open_clip:ViT-B-32", class_names=NAMES, templates=TEMPLATES, pretrained=False)
    model: Any = lens.view.module.model
    with torch.no_grad():
        model.logit_scale.fill_(4.6052)  # where training ends: 100
    lens = classlens.load(classifier(model, open_clip.get_tokenizer("ViT-B-32"), NAMES, TEMPLATES))
    assert (len(lens.view.blocks), lens.view.blocks[0].heads) == (12, 12)
    assert lens.checks.law1 == 0
    x = pixels(2, (224, 224), torch.float32)
    with torch.no_grad():
        logits = lens.view.run(x)
    trace = lens.trace(x)
    last = trace.recording.state("resid_post", 11, slice(None))
    torch.testing.assert_close(lens.view.logits(last), logits, rtol=0, atol=1e-4)
    parts = trace.attribution("predicted")
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(summed, logits.max(dim=1).values, rtol=0, atol=1e-4)


# Modules that the user holds


def test_a_model_without_classes() -> None:
    model = build("cls")
    refused(lambda: classlens.load(model), "'CLIP'", "classlens.models.open_clip.classifier(")
    refused(lambda: classlens.load(model.visual), "'VisionTransformer'", "classlens.models.open_clip.classifier(")


def _vision(**options: Any) -> Any:
    text = open_clip.CLIPTextCfg(**TEXT)
    return open_clip.CLIP(8, open_clip.CLIPVisionCfg(**{**VISION, **options}), text)


def _changed(change: Callable[[Any], None]) -> Any:
    model = _vision()
    change(model.visual)
    return model


def _norm(visual: Any) -> None:
    visual.ln_post = nn.BatchNorm1d(17)


def _mlp(visual: Any) -> None:
    visual.transformer.resblocks[1].mlp.c_proj = nn.Identity()


def _scale(visual: Any) -> None:
    visual.transformer.resblocks[1].ls_2 = nn.Linear(16, 16)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: _vision(attentional_pool=True, attn_pooler_heads=2), "attentional_pool"),
        (lambda: _vision(pool_type="none"), "pools with 'none'"),
        (lambda: _vision(qk_norm=True), "CustomResidualAttentionBlock"),
        (lambda: _vision(layers=(1, 1, 1, 1)), "ModifiedResNet"),
        (lambda: _vision(timm_model_name="test_resnet", image_size=160), "ResNet"),
        (lambda: _vision(timm_model_name="test_vit", timm_pool="token", timm_proj="mlp", image_size=160), "Mlp"),
        (lambda: _changed(_norm), "BatchNorm1d"),
        (lambda: _changed(_mlp), "Identity"),
        (lambda: _changed(_scale), "Linear"),
        (lambda: nn.Linear(2, 2), "NoneType"),
    ],
)
def test_what_is_refused(make: Callable[[], nn.Module], reason: str) -> None:
    model = make()
    refused(lambda: classifier(model, tokenizer(), NAMES), f"'{type(model).__name__}'", reason)


def test_what_is_no_list() -> None:
    refused(lambda: classifier(build("cls"), tokenizer(), "cat"), "class_names are 'cat'")
    refused(lambda: classifier(build("cls"), tokenizer(), NAMES, []), "templates are empty")


def test_a_forward_of_one_s_own_is_noticed() -> None:
    class Louder(ZeroShotClassifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return 2 * super().forward(pixels)

    made = zero_shot("cls")
    refused(lambda: classlens.load(Louder(made.model, made.text, NAMES)), "Louder", "misses the model's logits")
