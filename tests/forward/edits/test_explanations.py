"""Explanations under edits are those of the edited model, whatever the family; also after the edits have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import classlens
from classlens import (
    AblateHeads,
    AblateNeurons,
    AblateSublayer,
    CutAttention,
    Edit,
    EditStep,
    KeepTokens,
    Lens,
    NoCls,
    Patch,
    SelfOnly,
)
from classlens.explain.registry import METHODS
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.edits.random_means import random_means
from tests.forward.models import pixels_of, view_of
from tests.models.library_models import MODELS
from tests.refusals import refused

FAMILIES = (
    "timm cls_registers",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "timm avg_includes_prefix",
            "timm avg_post_norm",
            "timm EVA-02",
            "timm parallel branches, LayerScale",
            "torchvision",
            "open_clip cls",
            "transformers ViTForImageClassification",
            "transformers Dinov2ForImageClassification",
        )
        if name.startswith("timm") or name in MODELS
    ),
)
IMAGES = 4


def mask(view: ModelView) -> np.ndarray[Any, Any]:
    """Every third image token is dropped, others in each image."""
    tokens = view.tokens(view.input_size)
    dropped = (np.arange(tokens.count)[None] + np.arange(IMAGES)[:, None]) % 3 == 0
    dropped[:, : len(tokens.prefix)] = False
    kept: np.ndarray[Any, Any] = ~dropped
    return kept


def random(view: ModelView, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


EDITS: dict[str, Callable[[ModelView], Edit]] = {
    "cut": lambda _: CutAttention("image", [2, 3], renormalize=True),
    "self_only": lambda _: SelfOnly(),
    "keep": lambda view: KeepTokens(mask(view)),
    "neurons": lambda _: AblateNeurons([0, 3], blocks=[1]),
    "channels": lambda view: AblateNeurons([0, 3, 4], blocks=[0, 1], sublayer="attn", to=random_means(view)),
    "heads": lambda _: AblateHeads([0], blocks=[1]),
    "heads, means": lambda view: AblateHeads([0, 1], to=random_means(view)),
    "heads, some tokens": lambda view: AblateHeads([1], tokens=[0, 2], to=random(view, 1)),
    "attn": lambda _: AblateSublayer("attn", blocks=[1]),
    "attn, some tokens": lambda view: AblateSublayer("attn", tokens=[0, 1], to=random(view, 1)),
    "mlp": lambda view: AblateSublayer("mlp", blocks=[0, 1], to=random_means(view)),
    "patch embed": lambda view: Patch("embed", source=pixels_of(view, 1, seed=9)),
    "patch heads": lambda view: Patch("heads", source=pixels_of(view, IMAGES, seed=9), blocks=[0, 1], heads=[0]),
    "patch attn_out": lambda view: Patch("attn_out", source=pixels_of(view, IMAGES, seed=9), tokens=[0, 3]),
    "patch resid_post": lambda view: Patch("resid_post", source=pixels_of(view, 1, seed=9), blocks=[0]),
}
LAST = ("heads", "heads, means", "channels", "attn", "patch heads")
"""Edits that a model changed by hand can have in the last block of a ``[CLS]`` model."""
AGAIN = ("rollout", "chefer", "grad_cam", "legrad")
"""Methods that run the model again, the first where an edit changes attention weights."""
ONCE = ("attention", "logit_attribution", "log_odds")
"""Methods that need attention weights, but no other pass."""

_lenses: dict[str, Lens] = {}


def lens_of(family: str) -> Lens:
    if family not in _lenses:
        view = view_of(family)
        _lenses[family] = classlens.load(view.module)
    return _lenses[family]


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_explains_the_edited_model(family: str, name: str) -> None:
    """Contributions sum to the edited logit (law 3), and gradients in closed form are those of autograd."""
    lens = lens_of(family)
    view, pixels = lens.view, pixels_of(lens.view, IMAGES)
    if "attn_out" not in {point for point, place in view.blocks[0].points.items() if place.editable} and (
        "attn" in name and "channels" not in name
    ):
        return
    unedited = lens.trace(pixels).model_logits
    edit = EDITS[name](view)
    with lens.edit(edit):
        trace = lens.trace(pixels, batch_size=IMAGES)
        parts = trace.attribution(1)
        for method in METHODS:
            assert np.isfinite(trace.explain(1, method=method)).all(), method
        total = parts["embed"] + parts["attention"].sum(["block", "head"]) + parts["mlp"].sum("block")
        total = total + parts["bias"] + parts["edit"].sum("block")
        np.testing.assert_allclose(total, trace.model_logits[:, 1], rtol=0, atol=1e-9)
        assert float(abs(trace.model_logits - unedited).max()) > 1e-4
        odds = trace.explain(1, method="log_odds", against=2) - trace.explain(1, method="logit_attribution")
        np.testing.assert_allclose(odds, -trace.explain(2, method="logit_attribution"), rtol=0, atol=1e-9)
        by_autograd = _gradients(lens, pixels)
        streamed = lens.explain(pixels, 1, method="class_gradient", loss="logit")
    # Afterwards: no pass is needed, and none is run.
    closed = trace.explain(1, method="class_gradient", loss="logit")
    xr.testing.assert_allclose(streamed, closed, rtol=0, atol=1e-12)
    every = trace.explain_every_class()
    np.testing.assert_allclose(every.sel(category=1), closed.sum(["block", "head"]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(closed, by_autograd, rtol=0, atol=1e-9)


def _gradients(lens: Lens, pixels: Tensor) -> np.ndarray[Any, Any]:
    """``∂z/∂A`` of each block's own logit at attention's output, by autograd through the edited model."""
    from classlens.explain.queries import Queries, queries_of
    from classlens.forward.differentiable import differentiable_pass

    view, recording = lens.view, lens.trace(pixels, batch_size=IMAGES).recording
    points = ("attn_out",) if view.blocks[0].points["attn_out"].editable else ()
    if not points:
        pytest.skip("the output of attention alone cannot be replaced here, so no gradient by it is taken")
    graph = differentiable_pass(view, pixels, points)
    maps = []
    for block, weights in enumerate(graph.attention):
        total: Any = 0.0
        with torch.enable_grad():
            queries: Queries
            for queries in queries_of(recording, None):
                chosen = graph.activations["attn_out"][block][:, queries.positions]
                logits = queries.space.project(chosen)[..., 1]
                kept = torch.ones_like(logits) if recording.kept is None else recording.kept[:, queries.positions]
                total = total + queries.weight * ((logits * kept).sum(dim=1) / kept.sum(dim=1)).sum()
        rows = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
        maps.append(torch.cat(rows, dim=1).sum(dim=2)[:, :, recording.tokens.image])
    return torch.stack(maps, dim=1).numpy()


def test_heads_are_those_of_a_model_changed_by_hand() -> None:
    """Zeros in the columns of the projection take a head, or a channel, out of the model itself."""
    lens, changed = lens_of("timm cls_registers"), zoo.build("cls_registers")
    pixels = pixels_of(lens.view, IMAGES)
    edits = (AblateHeads([0], blocks=[1]), AblateNeurons([9], blocks=[2], sublayer="attn"), AblateNeurons([5, 7]))
    plain: Any = classlens.load(zoo.build("cls_registers")).view.module
    for module in (plain, changed):
        module.load_state_dict(lens.view.module.state_dict())
    with torch.no_grad():
        changed.blocks[1].attn.proj.weight[:, :8] = 0
        changed.blocks[2].attn.proj.weight[:, 9] = 0
        for block in changed.blocks:
            block.mlp.fc2.weight[:, [5, 7]] = 0
    expected = classlens.load(changed).trace(pixels)
    with lens.edit(*edits):
        trace = lens.trace(pixels)
        for method in METHODS:
            if method in ("chefer", "grad_cam"):  # through later blocks, replaced values have no gradient
                continue
            xr.testing.assert_allclose(
                trace.explain(1, method=method), expected.explain(1, method=method), rtol=0, atol=1e-9
            )
        xr.testing.assert_allclose(trace.attribution(1), expected.attribution(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["cls_registers", "avg", "avg_includes_prefix", "avg_norm_before_pool"])
def test_dropped_tokens_are_those_of_a_shorter_sequence(name: str) -> None:
    """Every method, for the tokens that are kept, against a model that embeds them alone."""
    model = zoo.build(name)
    lens, pixels = classlens.load(model), zoo.pixels(name)
    count = lens.view.tokens(lens.view.input_size).count
    kept = [token for token in range(count) if token not in (count - 2, count - 4)]
    with lens.edit(KeepTokens(np.isin(np.arange(count), kept))):
        trace = lens.trace(pixels)
        found = {method: trace.explain(1, method=method) for method in METHODS if method != "random"}
        parts = trace.attribution(1)
    shorter = _Shorter(model, kept)
    image_tokens = [token - len(lens.view.prefix) for token in kept if token >= len(lens.view.prefix)]
    view = replace(lens.view, module=shorter, grid=lambda _: (1, len(image_tokens)))
    expected = classlens.load(view).trace(pixels)
    np.testing.assert_allclose(trace.model_logits, expected.model_logits, rtol=0, atol=1e-10)
    for method, maps in found.items():
        others = expected.explain(1, method=method)
        np.testing.assert_allclose(maps[..., image_tokens], others, rtol=0, atol=1e-9, err_msg=method)
    for part, values in expected.attribution(1).items():
        chosen = parts[part][..., kept] if part == "attention_token" else parts[part]
        np.testing.assert_allclose(chosen, values, rtol=0, atol=1e-9, err_msg=str(part))


class _Shorter(torch.nn.Module):
    """A timm model whose embedding keeps some tokens."""

    def __init__(self, model: Any, kept: list[int]) -> None:
        super().__init__()
        self.model, self.kept = model, kept

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.model._pos_embed(self.model.patch_embed(pixels))
        x = self.model.norm(self.model.blocks(self.model.norm_pre(x)[:, self.kept]))
        logits: Tensor = self.model.forward_head(x)
        return logits


@dataclass(frozen=True, eq=False)
class BatchMean(Edit):
    """Two heads get their mean over the images that run together."""

    label, about = "batch mean", "outputs of heads become those of the batch"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        def mean(x: Tensor, _: slice) -> Tensor:
            return torch.cat([x[..., :16].detach().mean(dim=0, keepdim=True).expand_as(x[..., :16]), x[..., 16:]], -1)

        for block in range(len(view.blocks)):
            yield EditStep("attn_coefficients", block, mean, replaces=True)


def test_a_trace_in_several_batches() -> None:
    """A mean over the images of a batch is that of the same batch again; masks are those of its images."""
    lens = lens_of("timm cls_registers")
    pixels = pixels_of(lens.view, IMAGES)
    with lens.edit(BatchMean()):
        trace = lens.trace(pixels, batch_size=2)
        for method in (*AGAIN, *ONCE):
            both = [lens.trace(pixels[part]).explain(1, method=method).values for part in (slice(0, 2), slice(2, 4))]
            np.testing.assert_allclose(trace.explain(1, method=method), np.concatenate(both), rtol=0, atol=1e-12)


@dataclass(frozen=True, eq=False)
class Halved(Edit):
    """Computes with what passes."""

    point: str
    label, about = "halved", "a tensor is halved"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        yield EditStep(self.point, 1, lambda x, _: 0.5 * x)


@pytest.mark.parametrize("point", ["attn_out", "attn_coefficients"])
def test_edits_that_compute_with_what_passes(point: str) -> None:
    """Attribution takes what is really added; a gradient in closed form would not know the edit's own."""
    lens = lens_of("timm cls_registers")
    pixels = pixels_of(lens.view)
    with lens.edit(Halved(point)):
        trace = lens.trace(pixels)
        parts = trace.attribution(1)
        total = sum(parts[part].sum([dim for dim in parts[part].dims if dim != "image"]) for part in PARTS)
        np.testing.assert_allclose(total, trace.model_logits[:, 1], rtol=0, atol=1e-9)
        for call in (
            lambda: trace.explain(1, method="class_gradient"),
            lambda: trace.explain_every_class(),
            lambda: lens.explain(pixels, 1, method="class_gradient"),
        ):
            refused(call, f"an edit computes with what passes at {point}", "replaces=True", "chefer")
        assert np.isfinite(trace.explain(1, method="legrad")).all()


PARTS = ("embed", "attention", "mlp", "bias", "edit")


@pytest.mark.parametrize("point", ["resid_pre", "resid_post"])
def test_the_residual_stream_is_edited_by_what_is_added(point: str) -> None:
    lens = lens_of("timm cls_registers")
    with lens.edit(Halved(point)):
        refused(lambda: lens.trace(pixels_of(lens.view)), f"an edit changes {point} of block 1", "mlp_out")


def test_an_ablated_head_has_no_gradient() -> None:
    """LeGrad after the last block: autograd through the edited model."""
    lens = lens_of("timm cls_registers")
    with lens.edit(AblateHeads([0], blocks=[2])):
        maps = lens.trace(pixels_of(lens.view)).explain(2, method="legrad")
    assert float(abs(maps[:, 2, 0]).max()) == 0
    assert float(abs(maps[:, 2, 1]).max()) > 0


@pytest.mark.parametrize("method", AGAIN)
def test_a_trace_after_its_edits(method: str) -> None:
    lens = lens_of("timm cls_registers")
    edit: Any = NoCls()
    with lens.edit(edit):
        trace = lens.trace(pixels_of(lens.view))
        expected = trace.explain(2, method=method)
    refused(lambda: trace.explain(2, method=method), "these images ran with NoCls", "within the same lens.edit")
    with lens.edit(AblateSublayer("mlp", blocks=[0])):
        refused(lambda: trace.explain(2, method=method), "NoCls")
    with lens.edit(edit):
        assert trace.explain(2, method=method).equals(expected)


@pytest.mark.parametrize("method", ONCE)
def test_a_trace_that_outlives_its_edits(method: str) -> None:
    lens = lens_of("timm cls_registers")
    with lens.edit(NoCls()):
        trace = lens.trace(pixels_of(lens.view))
        expected = trace.explain(2, method=method)
    assert trace.explain(2, method=method).equals(expected)
    with lens.edit(AblateSublayer("mlp", blocks=[0])):
        assert trace.explain(2, method=method).equals(expected)
    assert not lens.trace(pixels_of(lens.view)).explain(2, method=method).equals(expected)


def test_a_trace_before_an_edit() -> None:
    lens = lens_of("timm cls_registers")
    pixels = pixels_of(lens.view)
    trace = lens.trace(pixels)
    expected = trace.attribution(2)
    with lens.edit(NoCls()):
        refused(lambda: trace.explain(2, method="legrad"), "these images ran with no edits")
        assert trace.attribution(2).equals(expected)
