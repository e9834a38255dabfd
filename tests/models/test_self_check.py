"""The self-check: what it measures on a healthy model, and what it catches."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import classlens
from classlens.errors import ClasslensError
from classlens.lens.verify import verify
from classlens.models import timm as timm_family
from classlens.models.self_check import Checks, measure_laws, require_laws
from classlens.models.view import ModelView
from tests.literal import States, states
from tests.zoo import randomize

EPS = {torch.float32: 2**-23, torch.float64: 2**-52}


def tiny(cls: type[VisionTransformer] = VisionTransformer, **options: Any) -> VisionTransformer:
    shared = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    model = cls(**{**shared, **options})
    randomize(model)
    return model.eval()


def passed(dtype: torch.dtype = torch.float32) -> tuple[ModelView, Tensor, States]:
    """A forward pass as timm's modules make it, without a hook of classlens."""
    model = tiny().to(dtype)
    pixels = torch.randn(2, 3, 16, 16, dtype=dtype)
    with torch.no_grad():
        return timm_family.describe(model, "tiny"), model(pixels), states(model, pixels)


def measured(view: ModelView, logits: Tensor, found: States) -> Checks:
    names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    return require_laws(
        view, measure_laws(view, logits, view.tokens((16, 16)), **{name: found[name] for name in names})
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_healthy_model(dtype: torch.dtype) -> None:
    checks = measured(*passed(dtype))
    assert checks.law1 <= checks.law1_tolerance == 4 * EPS[dtype]
    assert checks.law2 <= 1e-4
    assert checks.law2_tolerance >= 1e-4


def test_the_measured_error_of_law_1_is_a_share_of_the_largest_hidden_state() -> None:
    view, logits, found = passed(torch.float64)
    found["mlp_out"][1] = found["mlp_out"][1].clone()
    found["mlp_out"][1][0, 2, 3] += 1e-3
    share = 1e-3 / float(found["resid_post"][1].abs().max())
    with pytest.raises(ClasslensError, match=f"relative error {share:.1e}"):
        measured(view, logits, found)


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_post"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_every_part_of_every_block_counts_in_law_1(site: str, block: int) -> None:
    view, logits, found = passed()
    found[site][block] = found[site][block].clone()
    found[site][block][1, 4, 23] += 1e-3
    if site == "resid_post" and block < 2:
        found["resid_pre"][block + 1] = found["resid_post"][block]  # the streams still meet
    with pytest.raises(ClasslensError, match="not the sum of their parts"):
        measured(view, logits, found)


def test_blocks_must_follow_one_another() -> None:
    view, logits, found = passed()
    # Every block adds up, but something happened between the first and the second.
    for site in ("resid_pre", "resid_post"):
        found[site][1] = found[site][1] + 1
    with pytest.raises(ClasslensError, match="the input of block 1 is not the output of block 0"):
        measured(view, logits, found)


def test_the_measured_error_of_law_2() -> None:
    view, logits, found = passed(torch.float64)
    assert measured(view, logits, found).law2 < 1e-12
    slightly = logits.clone()
    slightly[1, 3] += 5e-5
    assert measured(view, slightly, found).law2 == pytest.approx(5e-5, rel=1e-6)
    slightly[1, 3] += 0.01
    with pytest.raises(ClasslensError, match="misses the model's logits by 1.0e-02"):
        measured(view, slightly, found)


# Models that do something else than they say


def louder_block(model: Any) -> None:
    """A block whose ``forward`` was replaced on the object, so that its type says nothing."""
    original = model.blocks[1].forward
    model.blocks[1].forward = MethodType(lambda self, x, *args, **kwargs: original(x, *args, **kwargs) + 0.01, model)


def noisy_block(model: Any) -> None:
    original = model.blocks[2].forward
    model.blocks[2].forward = lambda x, *args, **kwargs: original(x, *args, **kwargs) + 0.1 * torch.randn_like(x)


def hook_on_a_block(model: Any) -> None:
    model.blocks[0].register_forward_hook(lambda _, __, output: output * 1.01)


def hook_before_a_block(model: Any) -> None:
    model.blocks[1].register_forward_pre_hook(lambda _, args: (args[0] + 0.01,))


def hook_on_the_norm(model: Any) -> None:
    model.norm.register_forward_hook(lambda _, __, output: output + 0.1)


def hook_on_the_head(model: Any) -> None:
    model.head.register_forward_hook(lambda _, __, output: output.softmax(dim=-1))


def scaled_head(model: Any) -> None:
    original = model.forward_head
    model.forward_head = lambda x, **kwargs: 10 * original(x, **kwargs)


LIES: dict[str, tuple[Callable[[Any], None], str]] = {
    "a block adds something, law 1": (louder_block, "not the sum of their parts"),
    "a block adds noise, law 1": (noisy_block, "not the sum of their parts"),
    "a hook scales a block, law 1": (hook_on_a_block, "not the sum of their parts"),
    "a hook between two blocks, law 1": (hook_before_a_block, "the input of block 1 is not the output of block 0"),
    "a hook on the final norm, law 2": (hook_on_the_norm, "misses the model's logits"),
    "a hook on the head, law 2": (hook_on_the_head, "misses the model's logits"),
    "the logits are scaled, law 2": (scaled_head, "misses the model's logits"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_model_that_computes_something_else(kind: str) -> None:
    change, reason = LIES[kind]
    model = tiny()
    classlens.load(model)
    change(model)
    with pytest.raises(ClasslensError, match=reason) as caught:
        classlens.load(model)
    assert "the description of model 'VisionTransformer' is wrong" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_subclass_with_another_way_to_its_logits() -> None:
    class Averaged(VisionTransformer):
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            logits: Tensor = self.head(x.mean(dim=1))
            return logits

    with pytest.raises(ClasslensError, match="misses the model's logits"):
        classlens.load(tiny(Averaged))


def test_a_head_replaced_behind_the_back_of_a_lens() -> None:
    model = tiny()
    lens = classlens.load(model)
    model.head = nn.Linear(24, 5)
    with pytest.raises(ClasslensError, match="is another tensor now"):
        lens.check()


def test_the_check_can_be_repeated_on_the_users_own_pixels() -> None:
    lens = classlens.load(tiny())
    checks = lens.check(torch.randn(3, 3, 16, 16))
    assert checks.law1 <= checks.law1_tolerance
    assert checks.law2 <= 1e-4
    assert lens.check() == lens.checks, "the check's own image is always the same"


# Weights that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_parameter_that_is_not_finite_is_named(value: float) -> None:
    model = tiny()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3, 4] = value
        model.head.bias[2] = value
    with pytest.raises(ClasslensError, match="finite") as caught:
        classlens.load(model)
    assert "'blocks.1.mlp.fc1.weight'" in str(caught.value)
    assert "checkpoint" in str(caught.value)


def test_logits_out_of_range_say_so() -> None:
    model = tiny().half()
    with torch.no_grad():
        model.norm.bias.fill_(100)
        model.head.weight.fill_(60000)
    with pytest.raises(ClasslensError, match="not finite; load it in float32"):
        classlens.load(model)


def test_a_buffer_that_is_not_finite_is_named() -> None:
    model: Any = tiny()
    model.register_buffer("shift", torch.tensor(float("nan")))
    model.head.register_forward_hook(lambda _, __, output: output + model.shift)
    with pytest.raises(ClasslensError, match="not finite in 'shift'"):
        classlens.load(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_law_2_in_half_precision_sees_a_head_that_is_wrong_by_a_tenth(dtype: torch.dtype) -> None:
    model: Any = tiny().to(dtype)
    assert classlens.load(model).checks.law2 > 0, "rounding"
    model.head.register_forward_hook(lambda _, __, output: 1.1 * output)
    with pytest.raises(ClasslensError, match="misses the model's logits"):
        classlens.load(model)


def test_another_projection_is_noticed() -> None:
    """By the law of memories, which is measured on demand."""
    model: Any = tiny()
    lens = classlens.load(model)
    model.blocks[1].mlp.fc2.register_forward_hook(lambda _, __, out: 1.01 * out)
    laws = {law.name: law for law in verify(lens.view)}
    assert not laws["memories"].holds
