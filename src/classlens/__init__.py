"""classlens: how a Vision Transformer image classifier builds its classes, in its own class embedding."""

from typing import TYPE_CHECKING, Any

from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from classlens.core.attention import Output
    from classlens.core.maps import Norm
    from classlens.core.space import ClassSpace
    from classlens.core.stats import Statistics
    from classlens.experiments.analyse import Analysis, analyse
    from classlens.faithful.run import Faithfulness, faithfulness
    from classlens.hooks.edits import (
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
    from classlens.lens.translators import Translators
    from classlens.models.view import BlockView, ModelView, Point, Readout
    from classlens.probes.run import Probed, probe
    from classlens.probes.tuned import Tuned, tune
    from classlens.runs.measure import measure
    from classlens.runs.store import open_store

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
    "Faithfulness",
    "KeepTokens",
    "Lens",
    "ModelView",
    "NoCls",
    "Norm",
    "Output",
    "Patch",
    "Point",
    "Probed",
    "Readout",
    "SelfOnly",
    "Statistics",
    "Trace",
    "Translators",
    "Tuned",
    "__version__",
    "analyse",
    "faithfulness",
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
        "classlens.hooks.edits",
    ),
    "measure": "classlens.runs.measure",
    "open_store": "classlens.runs.store",
    **dict.fromkeys(("Analysis", "analyse"), "classlens.experiments.analyse"),
    **dict.fromkeys(("Faithfulness", "faithfulness"), "classlens.faithful.run"),
    **dict.fromkeys(("Probed", "probe"), "classlens.probes.run"),
    **dict.fromkeys(("Tuned", "tune"), "classlens.probes.tuned"),
    "Translators": "classlens.lens.translators",
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
