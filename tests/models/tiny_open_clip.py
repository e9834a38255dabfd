"""Tiny models of OpenCLIP, as zero-shot classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.models.open_clip import classifier
from classlens.models.open_clip_text import ZeroShotClassifier
from tests.models.oracles import TinyModel, output_itself, randomize

NAMES = ["tabby cat", "dog", "sea urchin", "tram", "rice"]
TEMPLATES = ["a photo of a {}.", "a drawing of the {}.", "{}"]
VISION: dict[str, Any] = {"layers": 3, "width": 16, "head_width": 8, "mlp_ratio": 2, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"context_length": 16, "width": 16, "heads": 2, "layers": 1}


@dataclass(frozen=True)
class Variant:
    vision: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    kind: str = "CLIP"
    grid: tuple[int, int] = (4, 4)
    tokens_first: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return (8 * self.grid[0], 8 * self.grid[1])


VARIANTS = {
    "cls": Variant(),
    "layer_scale": Variant({"ls_init_value": 0.1, "norm_kwargs": {"eps": 0.3}}, {"quick_gelu": True}),
    "odd_heads": Variant({"width": 24, "no_ln_pre": True}),
    "not_square": Variant({"image_size": (24, 16)}, grid=(3, 2), kind="CustomTextCLIP"),
    "avg": Variant({"pool_type": "avg", "patch_dropout": 0.5}),
    "avg_norm_after_pool": Variant({"pool_type": "avg", "final_ln_after_pool": True}),
    "logit_bias": Variant(model={"init_logit_bias": -10.0}),
    "scale_of_one": Variant(model={"init_logit_bias": -10.0, "nonscalar_logit_scale": True}),
    "tokens_first": Variant({"ls_init_value": 0.1}, tokens_first=True),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A CLIP model as a user holds it."""
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
    image = model.encode_image(x)  # first, so that its attention is computed before that of the text tower
    rows = []
    with torch.no_grad():
        for name in NAMES:
            features = [model.encode_text(tokenizer()([template.replace("{}", name)]))[0] for template in TEMPLATES]
            mean = sum(feature / feature.norm() for feature in features) / len(features)
            rows.append(mean / mean.norm())
    image = image / image.norm(dim=-1, keepdim=True)
    logits: Tensor = model.logit_scale.exp() * image @ torch.stack(rows).T
    return logits if model.logit_bias is None else logits + model.logit_bias


def states(module: Any, pixels: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = module.model.visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
    pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
    return [torch.cat([prefix, image], dim=1) for prefix, image in pairs]


def token_logits(module: Any, x: Tensor, _: int) -> Tensor:
    model = module.model
    cosines = F.normalize(model.visual.ln_post(x) @ model.visual.proj, dim=-1) @ module.text.T
    scaled: Tensor = cosines * model.logit_scale.exp()
    return scaled if model.logit_bias is None else scaled + model.logit_bias


MODELS: dict[str, TinyModel] = {
    name: TinyModel(
        library="open_clip",
        make=partial(zero_shot, name),
        blocks=lambda module: list(module.model.visual.transformer.resblocks),
        added=lambda block: [(block.ls_1, output_itself)],
        states=states,
        token_logits=token_logits,
        grid=variant.grid,
        size=variant.size,
        classes=len(NAMES),
        heads=3 if name == "odd_heads" else 2,
        pooling="avg" if "avg" in name else "cls",
        queries=(tuple(range(1, 17)) if "avg" in name else (0,),),
        logits=lambda module, pixels: own_logits(module.model, pixels),
    )
    for name, variant in VARIANTS.items()
}


# Models that are not supported, for ``classifier``


def _vision(**options: Any) -> Any:
    return open_clip.CLIP(8, open_clip.CLIPVisionCfg(**{**VISION, **options}), open_clip.CLIPTextCfg(**TEXT))


def _changed(change: Callable[[Any], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model: nn.Module = _vision()
        change(model.visual)
        return model

    return make


def bare(model: nn.Module) -> nn.Module:
    """A bare model as a classifier, without the check of ``classifier``."""
    return ZeroShotClassifier(model, torch.ones(len(NAMES), 8), NAMES)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "attentional pool": (partial(_vision, attentional_pool=True, attn_pooler_heads=2), "attentional_pool"),
    "no pool": (partial(_vision, pool_type="none"), "pools with 'none'"),
    "other blocks": (partial(_vision, qk_norm=True), "CustomResidualAttentionBlock"),
    "ResNet": (partial(_vision, layers=(1, 1, 1, 1)), "ModifiedResNet"),
    "ResNet of timm": (partial(_vision, timm_model_name="test_resnet", image_size=160), "ResNet"),
    "MLP of timm": (
        partial(_vision, timm_model_name="test_vit", timm_pool="token", timm_proj="mlp", image_size=160),
        "Mlp",
    ),
    "another norm": (_changed(lambda visual: setattr(visual, "ln_post", nn.BatchNorm1d(17))), "BatchNorm1d"),
    "another MLP": (
        _changed(lambda visual: setattr(visual.transformer.resblocks[1].mlp, "c_proj", nn.Identity())),
        "Identity",
    ),
    "another scale": (
        _changed(lambda visual: setattr(visual.transformer.resblocks[1], "ls_2", nn.Linear(16, 16))),
        "Linear",
    ),
}
