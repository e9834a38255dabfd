"""classlens: how a Vision Transformer image classifier builds its classes, in its own class embedding."""

from typing import TYPE_CHECKING, Any

from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from classlens.analysis.analyze import Analysis, analyze
    from classlens.core.attention import Output
    from classlens.core.maps import Norm
    from classlens.core.space import ClassSpace
    from classlens.core.stats import Statistics
    from classlens.forward.edits.ablate_heads import AblateHeads
    from classlens.forward.edits.ablate_neurons import AblateNeurons
    from classlens.forward.edits.ablate_sublayer import AblateSublayer
    from classlens.forward.edits.cut_attention import CutAttention, NoCls
    from classlens.forward.edits.edit import Edit, EditStep
    from classlens.forward.edits.keep_tokens import KeepTokens
    from classlens.forward.edits.patch import Patch
    from classlens.forward.edits.self_only import SelfOnly
    from classlens.lens.lens import Lens, load
    from classlens.lens.trace import Trace
    from classlens.lens.tuned_lens import TunedLens
    from classlens.models.view import BlockView, ModelView, Point, Readout
    from classlens.store.store import open_store
    from classlens.tasks.evaluation.evaluate import EvaluateResult, evaluate
    from classlens.tasks.probes.probe import ProbeResult, probe
    from classlens.tasks.tokens.measure import measure
    from classlens.tasks.tuned_lens.tune import TuneResult, tune

__version__ = "0.1.0"
__all__ = [
    "AblateHeads",
    "AblateNeurons",
    "AblateSublayer",
    "Analysis",
    "BlockView",
    "ClassSpace",
    "ClasslensError",
    "CutAttention",
    "Edit",
    "EditStep",
    "EvaluateResult",
    "KeepTokens",
    "Lens",
    "ModelView",
    "NoCls",
    "Norm",
    "Output",
    "Patch",
    "Point",
    "ProbeResult",
    "Readout",
    "SelfOnly",
    "Statistics",
    "Trace",
    "TuneResult",
    "TunedLens",
    "__version__",
    "analyze",
    "evaluate",
    "load",
    "measure",
    "open_store",
    "probe",
    "tune",
]

_HOMES = {
    "Lens": "classlens.lens.lens",
    "load": "classlens.lens.lens",
    "Trace": "classlens.lens.trace",
    **dict.fromkeys(("Edit", "EditStep"), "classlens.forward.edits.edit"),
    "measure": "classlens.tasks.tokens.measure",
    "open_store": "classlens.store.store",
    **dict.fromkeys(("Analysis", "analyze"), "classlens.analysis.analyze"),
    **dict.fromkeys(("EvaluateResult", "evaluate"), "classlens.tasks.evaluation.evaluate"),
    **dict.fromkeys(("ProbeResult", "probe"), "classlens.tasks.probes.probe"),
    **dict.fromkeys(("TuneResult", "tune"), "classlens.tasks.tuned_lens.tune"),
    "TunedLens": "classlens.lens.tuned_lens",
    "Statistics": "classlens.core.stats",
    # What describes a model of one's own.
    **dict.fromkeys(("BlockView", "ModelView", "Point", "Readout"), "classlens.models.view"),
    "ClassSpace": "classlens.core.space",
    "Norm": "classlens.core.maps",
    "Output": "classlens.core.attention",
}


def __getattr__(name: str) -> Any:
    # torch and timm take seconds to import; `classlens --help` should not.
    from importlib import import_module

    from classlens.forward.edits.registry import EDITS

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in EDITS:
        return EDITS[name]
    raise AttributeError(f"module 'classlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
