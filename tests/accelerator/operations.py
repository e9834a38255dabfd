"""Everything that a lens can be asked, by name, as functions of a lens and pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import classlens
from classlens import METHODS, Corruption, Directions, Edit, Lens, Trace, TunedLens
from classlens.lens.memories import class_memories, memory_classes
from classlens.models.view import SITES
from tests.forward.edits.random_means import random_means

Operation = Callable[[Lens, Tensor], Any]
GROUPS = {"class 0": "even", "class 2": "even", "class 1": "odd", "class 3": "odd"}


def sites(lens: Lens) -> list[Any]:
    return [site for site in SITES if site != "embed" and (site != "resid_mid" or lens.view.has_mid)]


def traced(ask: Callable[[Trace], Any]) -> Operation:
    return lambda lens, pixels: ask(lens.trace(pixels, batch_size=2))


def streamed(method: str | None = None, **options: Any) -> Operation:
    return lambda lens, pixels: lens.explain(pixels, method=method, batch_size=2, **options)


def by_site(ask: Callable[[Trace, Any], Any]) -> Operation:
    def operation(lens: Lens, pixels: Tensor) -> Any:
        trace = lens.trace(pixels, batch_size=2)
        return {site: ask(trace, site) for site in ["embed", *sites(lens)]}

    return operation


def tuned_lens(lens: Lens) -> TunedLens:
    identity, generator = TunedLens.identity(lens.view), torch.Generator().manual_seed(4)
    weight = identity.weight + 0.1 * torch.randn(identity.weight.shape, generator=generator)
    return TunedLens(weight, torch.randn(identity.bias.shape, generator=generator))


def tuned(lens: Lens, pixels: Tensor) -> Any:
    changed = lens.with_tuned_lens(tuned_lens(lens))
    trace = changed.trace(pixels)
    facts = changed.facts(pixels, "resid_post", 1)
    return [trace.logits(), trace.explain(1, method="class_gradient"), trace.trajectory(1), facts]


def directions(lens: Lens) -> Directions:
    width, generator = lens.view.blocks[0].attn.weight.shape[0], torch.Generator().manual_seed(5)
    drawn = torch.randn(3, 6, width, generator=generator)
    return Directions(drawn[0], "resid_post", 1, encoder=drawn[1], encoder_bias=drawn[2, :, 0])


def coefficients(lens: Lens, pixels: Tensor) -> Any:
    chosen = directions(lens)
    states = torch.from_numpy(lens.trace(pixels).states("resid_post").values).to(lens.view.device)
    plain = Directions(chosen.directions, chosen.site, chosen.block)
    return [each.coefficients(states).cpu() for each in (chosen, plain)]


TRACES: dict[str, Operation] = {
    "logits": by_site(lambda trace, site: trace.logits(site)),
    "rank": by_site(lambda trace, site: trace.rank(site)),
    "identifiability": traced(lambda trace: trace.identifiability(target=[0, 1, 2])),
    "top": by_site(lambda trace, site: trace.top(site, k=3)),
    "states": by_site(lambda trace, site: trace.states(site, tokens="image")),
    "norms": by_site(lambda trace, site: trace.norms(site)),
    "facts": lambda lens, pixels: lens.trace(pixels, batch_size=2).facts(sites(lens), "class 3"),
    "facts, streamed": lambda lens, pixels: lens.facts(pixels, sites(lens), [0, 1, 2], batch_size=2),
    "facts, embed": lambda lens, pixels: lens.facts(pixels, "embed", 0),
    "model_logits": traced(lambda trace: [trace.model_logits, trace.predictions]),
    "attention": traced(lambda trace: [trace.attention(), trace.attention([1], [2, 0], "all")]),
    "attention, class token": traced(lambda trace: trace.attention(queries="cls")),
    "picture": traced(lambda trace: list(trace.picture(1).convert("L").resize((2, 2)).tobytes())),
    "trajectory": traced(lambda trace: trace.trajectory()),
    "trajectory, against": traced(lambda trace: trace.trajectory([0, 1, 2], 2, against=4)),
    "trajectory, groups": traced(lambda trace: trace.trajectory(0, groups=GROUPS, against=1)),
    "trajectory, decoder": lambda lens, pixels: lens.trace(pixels).trajectory(decoder=tuned_lens(lens)),
    "attribution": traced(lambda trace: trace.attribution()),
    "attribution, against": traced(lambda trace: trace.attribution([0, 1, 2], against="class 4")),
    "units": traced(lambda trace: trace.units(top=5)),
    "units, attention": traced(lambda trace: trace.units(0, sublayer="attn", block=1, top=3, against=2)),
    "explain_every_class": traced(lambda trace: trace.explain_every_class()),
    "explain_every_class, cross entropy": traced(lambda trace: trace.explain_every_class(loss="cross_entropy")),
    "explain_classes": traced(lambda trace: list(trace.explain_classes(step=3))),
    "map": traced(lambda trace: trace.map()),
}


def explained(name: str, target: Any = "predicted", **options: Any) -> Operation:
    return traced(lambda trace: trace.explain(target, method=name, **options))


_OPTIONS: dict[str, dict[str, Any]] = {"against": {"against": 4}, "query": {"query": (0, 1)}}
EXPLANATIONS: dict[str, Operation] = {
    **{f"explain, {name}": explained(name) for name in METHODS},
    **{f"explain, {name}, streamed": streamed(name, target=[0, 1, 2]) for name in METHODS},
    **{
        f"explain, {name}, {option}": explained(name, [0, 1, 2], **options)
        for option, options in _OPTIONS.items()
        for name in METHODS
        if option in METHODS[name].options
    },
    **{
        f"explain, class_gradient, {loss}": streamed("class_gradient", target=0, loss=loss)
        for loss in ("logit", "cross_entropy", "double_softmax")
    },
    "explain, predicted": streamed(),
}
PARAMETERS: dict[str, Operation] = {
    "check": lambda lens, pixels: bool(lens.check(pixels)),
    "tuned lens": tuned,
    "head_map": lambda lens, _: [classlens.head_map(lens, 1, 0, k=5), classlens.head_map(lens, 0, 1)],
    "memory_classes": lambda lens, _: [memory_classes(lens, sublayer, 1, 2) for sublayer in ("attn", "mlp")],
    "class_memories": lambda lens, _: [class_memories(lens, "mlp", 1, category) for category in ("class 1", None)],
    "direction_classes": lambda lens, _: classlens.direction_classes(lens, directions(lens), 3, k=4),
    "coefficients": coefficients,
}


def edited(make: Callable[[Lens, Tensor], list[Edit]]) -> Operation:
    """Results under edits, of a trace and streamed."""

    def operation(lens: Lens, pixels: Tensor) -> Any:
        with lens.edit(*make(lens, pixels)):
            trace = lens.trace(pixels)
            results = [trace.model_logits, trace.rank(), trace.norms(), trace.attention(queries="all")]
            results += [trace.explain(0, method="class_gradient"), lens.facts(pixels, "mlp_out", 0)]
            if all(readout.space.pool is None for readout in lens.view.readouts):
                results += [trace.attribution(0), trace.units(0, top=4), trace.explain(0)]
            return results

    return operation


def mask(lens: Lens, images: int | None = None) -> Tensor:
    count = lens.view.tokens(lens.view.input_size).count
    kept = torch.arange(count) != count - 1
    return kept if images is None else kept & (count - 2 - torch.arange(images)[:, None] != torch.arange(count))


def others(pixels: Tensor) -> Tensor:
    return pixels.flip(0).roll(1, dims=-1)


def wide(lens: Lens) -> Tensor:
    return torch.linspace(-1, 1, lens.view.blocks[1].attn.weight.shape[0])


def patched(site: Any) -> Callable[[Lens, Tensor], list[Edit]]:
    return lambda _, pixels: [classlens.Patch(site, others(pixels), blocks=[1], tokens="image")]


EDITED: dict[str, Callable[[Lens, Tensor], list[Edit]]] = {
    "CutAttention": lambda lens, _: [
        classlens.CutAttention("image", mask(lens), renormalize=True, blocks=[1], heads=[0, 2])
    ],
    "CutAttention, by image": lambda lens, pixels: [classlens.CutAttention("all", ~mask(lens, len(pixels)))],
    "NoCls": lambda *_: [classlens.NoCls()],
    "SelfOnly": lambda *_: [classlens.SelfOnly(blocks=[0, 1])],
    "KeepTokens": lambda lens, _: [classlens.KeepTokens(mask(lens))],
    "KeepTokens, by image": lambda lens, pixels: [classlens.KeepTokens(mask(lens, len(pixels)))],
    "AblateHeads": lambda *_: [classlens.AblateHeads([0, 1], blocks=[1])],
    "AblateHeads, means": lambda lens, _: [classlens.AblateHeads([1], to=random_means(lens.view), tokens="image")],
    "AblateNeurons": lambda *_: [classlens.AblateNeurons([1, 5, 3], blocks=[0])],
    "AblateNeurons, means": lambda lens, _: [classlens.AblateNeurons([2, 0], to=random_means(lens.view))],
    "AblateNeurons, attention": lambda *_: [
        classlens.AblateNeurons([7, 2], tokens=[1], sublayer="attn", to=torch.tensor([1.0, -2.0]))
    ],
    "AblateSublayer": lambda lens, _: [classlens.AblateSublayer("attn", blocks=1, to=wide(lens))],
    "AblateSublayer, means": lambda lens, _: [classlens.AblateSublayer("mlp", blocks=[0], to=random_means(lens.view))],
    **{f"Patch, {site}": patched(site) for site in ("embed", "resid_pre", "attn_out", "mlp_out", "resid_post")},
    "Patch, heads": lambda _, pixels: [classlens.Patch("heads", others(pixels)[:1], heads=[1])],
    "several": lambda lens, pixels: [
        classlens.AblateHeads([0], blocks=[0]),
        classlens.SelfOnly(blocks=[1]),
        classlens.KeepTokens(mask(lens, len(pixels))),
    ],
}
EDITS: dict[str, Operation] = {f"edit, {name}": edited(make) for name, make in EDITED.items()}


def swept(corrupt: Any, over: str, **options: Any) -> Operation:
    def operation(lens: Lens, pixels: Tensor) -> Any:
        given = corrupt(lens, pixels) if callable(corrupt) and not isinstance(corrupt, Corruption) else corrupt
        return lens.sweep(pixels, given, over, **{"batch_size": 4, **options})

    return operation


def _others(_: Lens, pixels: Tensor) -> Tensor:
    return others(pixels)


_units: dict[str, Any] = {"parts": [3, 0], "blocks": [1]}
SWEEPS: dict[str, Operation] = {
    "sweep, sublayers": swept(_others, "sublayers"),
    "sweep, heads": swept(Corruption("blur"), "heads", blocks=[1], metric="logit_difference", target=0, against=1),
    "sweep, heads, noise": swept(Corruption("noise"), "heads", direction="noise", metric="probability"),
    "sweep, tokens": swept(_others, "tokens", site="attn_out", blocks=[0, 1], metric="logit", parts="image"),
    "sweep, tokens, rank": swept(Corruption("zero"), "tokens", metric="rank", blocks=[1], direction="noise"),
    "sweep, units": swept(Corruption("mean_color"), "units", **_units),
    "sweep, kept": swept(lambda lens, _: classlens.KeepTokens(mask(lens)), "heads", blocks=[1]),
    "sweep, kept, noise": swept(
        lambda lens, pixels: classlens.KeepTokens(mask(lens, len(pixels))), "tokens", blocks=[1], direction="noise"
    ),
    "sweep, means": swept(lambda lens, _: random_means(lens.view), "heads", direction="noise"),
    **{
        f"sweep, approximate, {over}": swept(_others, over, approximate=True, steps=steps, **options)
        for over, steps, options in (("heads", 1, {}), ("tokens", 3, {"direction": "noise"}), ("units", 2, _units))
    },
}
OPERATIONS: dict[str, Operation] = {**TRACES, **EXPLANATIONS, **PARAMETERS, **EDITS, **SWEEPS}
# One of each kind, for models of every kind.
CORE = (
    "logits",
    "rank",
    "states",
    "facts, streamed",
    "attention",
    "trajectory",
    "attribution",
    "units",
    "explain_every_class",
    *(f"explain, {name}" for name in METHODS),
    "explain, class_gradient, cross_entropy",
    "tuned lens",
    "head_map",
    "class_memories",
    "edit, AblateHeads, means",
    "edit, Patch, resid_post",
    "edit, several",
    "sweep, heads, noise",
    "sweep, approximate, heads",
)
