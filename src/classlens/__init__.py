"""classlens: how a Vision Transformer image classifier builds its classes, in its own class embedding."""

from typing import TYPE_CHECKING, Any

from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from classlens.analysis.analyze import AnalyzeResult, Missing, analyze
    from classlens.analysis.registry import EXPERIMENTS
    from classlens.core.attention import Output
    from classlens.core.maps import Norm
    from classlens.core.space import ClassSpace
    from classlens.core.stats import Statistics
    from classlens.forward.edits.edits import (
        AblateHeads,
        AblateNeurons,
        AblateSublayer,
        CutAttention,
        KeepTokens,
        NoCls,
        Patch,
        SelfOnly,
    )
    from classlens.lens.lens import Lens, load
    from classlens.lens.trace import Trace
    from classlens.lens.tuned_lens import TunedLens
    from classlens.models.view import BlockView, ModelView, Point, Readout
    from classlens.render.figures.analysis import figures
    from classlens.store.store import open_store
    from classlens.tasks.evaluation.evaluate import EvaluateResult, evaluate
    from classlens.tasks.probes.probe import ProbeResult, probe
    from classlens.tasks.tokens.measure import measure
    from classlens.tasks.tuned_lens.tune import TuneResult, tune

__version__ = "0.1.0"
__all__ = [
    "EXPERIMENTS",
    "AblateHeads",
    "AblateNeurons",
    "AblateSublayer",
    "AnalyzeResult",
    "BlockView",
    "ClassSpace",
    "ClasslensError",
    "CutAttention",
    "EvaluateResult",
    "KeepTokens",
    "Lens",
    "Missing",
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
    "figures",
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
    **dict.fromkeys(
        ("AblateHeads", "AblateNeurons", "AblateSublayer", "CutAttention", "KeepTokens", "NoCls", "Patch", "SelfOnly"),
        "classlens.forward.edits.edits",
    ),
    "measure": "classlens.tasks.tokens.measure",
    "open_store": "classlens.store.store",
    **dict.fromkeys(("AnalyzeResult", "Missing", "analyze"), "classlens.analysis.analyze"),
    "EXPERIMENTS": "classlens.analysis.registry",
    "figures": "classlens.render.figures.analysis",
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
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'classlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
