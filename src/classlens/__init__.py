"""classlens: how a Vision Transformer image classifier builds its classes, in its own class embedding."""

from typing import TYPE_CHECKING, Any

from classlens.errors import ClasslensError
from classlens.extras import raise_missing_extra
from classlens.forward.edits.registry import EDITS
from classlens.renderers import RENDERERS

if TYPE_CHECKING:
    from classlens.analysis.analyze import AnalyzeResult, Missing, analyze
    from classlens.analysis.atlas.atlas import Atlas, atlas
    from classlens.analysis.comparison.compare import Comparison, compare
    from classlens.analysis.registry import EXPERIMENTS
    from classlens.analysis.reliability import ReliabilityResult, reliability
    from classlens.core.attention import Output
    from classlens.core.space import ClassSpace
    from classlens.core.stats import Statistics
    from classlens.core.steps import Norm
    from classlens.data.dataset import ClassName, Dataset
    from classlens.data.open_dataset import open_dataset
    from classlens.engine.progress import MeasureResult, Progress
    from classlens.engine.ray import Cluster
    from classlens.explain.registry import METHODS
    from classlens.forward.edits.ablate_heads import AblateHeads
    from classlens.forward.edits.ablate_neurons import AblateNeurons
    from classlens.forward.edits.ablate_sublayer import AblateSublayer
    from classlens.forward.edits.cut_attention import CutAttention, NoCls
    from classlens.forward.edits.edit import Edit, EditStep
    from classlens.forward.edits.keep_tokens import KeepTokens
    from classlens.forward.edits.patch import Patch
    from classlens.forward.edits.self_only import SelfOnly
    from classlens.forward.means import Means
    from classlens.lens.describe_heads import describe_heads
    from classlens.lens.directions import Directions, direction_classes, read_directions
    from classlens.lens.explainer import Explainer, explain_func
    from classlens.lens.head_maps import head_map
    from classlens.lens.inspection import Inspection
    from classlens.lens.lens import Lens
    from classlens.lens.load import load
    from classlens.lens.means_file import load_means
    from classlens.lens.sweep_agreement import sweep_agreement
    from classlens.lens.trace import Trace
    from classlens.lens.trajectory import Trajectory
    from classlens.lens.tuned_lens import TunedLens
    from classlens.models.corruptions import Corruption
    from classlens.models.view import BlockView, ModelView, Point, Readout
    from classlens.render.folders.figures import figures
    from classlens.store.open_store import open_store
    from classlens.tasks.ablation.ablate import ablate
    from classlens.tasks.ablation.result import AblateResult
    from classlens.tasks.evaluation.evaluate import EvaluateResult, evaluate
    from classlens.tasks.means.means import MeansResult, means
    from classlens.tasks.probes.probe import ProbeResult, probe
    from classlens.tasks.tokens.measure import measure
    from classlens.tasks.tuned_lens.tune import TuneResult, tune

    __version__: str

__all__ = [
    "EXPERIMENTS",
    "METHODS",
    "AblateHeads",
    "AblateNeurons",
    "AblateResult",
    "AblateSublayer",
    "AnalyzeResult",
    "Atlas",
    "BlockView",
    "ClassName",
    "ClassSpace",
    "ClasslensError",
    "Cluster",
    "Comparison",
    "Corruption",
    "CutAttention",
    "Dataset",
    "Directions",
    "Edit",
    "EditStep",
    "EvaluateResult",
    "Explainer",
    "Inspection",
    "KeepTokens",
    "Lens",
    "Means",
    "MeansResult",
    "MeasureResult",
    "Missing",
    "ModelView",
    "NoCls",
    "Norm",
    "Output",
    "Patch",
    "Point",
    "ProbeResult",
    "Progress",
    "Readout",
    "ReliabilityResult",
    "SelfOnly",
    "Statistics",
    "Trace",
    "Trajectory",
    "TuneResult",
    "TunedLens",
    "__version__",
    "ablate",
    "analyze",
    "atlas",
    "compare",
    "describe_heads",
    "direction_classes",
    "evaluate",
    "explain_func",
    "figures",
    "head_map",
    "load",
    "load_means",
    "means",
    "measure",
    "open_dataset",
    "open_store",
    "probe",
    "read_directions",
    "reliability",
    "sweep_agreement",
    "tune",
]

# Imported on first use: torch and timm take seconds, which `classlens --help` should not.
_MODULES = {
    "lens.describe_heads": "describe_heads",
    "lens.directions": "Directions direction_classes read_directions",
    "lens.explainer": "Explainer explain_func",
    "lens.head_maps": "head_map",
    "lens.inspection": "Inspection",
    "lens.lens": "Lens",
    "lens.load": "load",
    "lens.means_file": "load_means",
    "lens.sweep_agreement": "sweep_agreement",
    "lens.trace": "Trace",
    "lens.trajectory": "Trajectory",
    "lens.tuned_lens": "TunedLens",
    "explain.registry": "METHODS",
    "forward.edits.edit": "Edit EditStep",
    "forward.means": "Means",
    "models.view": "BlockView ModelView Point Readout",
    "models.corruptions": "Corruption",
    "core.space": "ClassSpace",
    "core.steps": "Norm",
    "core.attention": "Output",
    "core.stats": "Statistics",
    "data.dataset": "ClassName Dataset",
    "data.open_dataset": "open_dataset",
    "store.open_store": "open_store",
    "engine.progress": "MeasureResult Progress",
    "engine.ray": "Cluster",
    "tasks.tokens.measure": "measure",
    "tasks.ablation.ablate": "ablate",
    "tasks.ablation.result": "AblateResult",
    "tasks.evaluation.evaluate": "EvaluateResult evaluate",
    "tasks.means.means": "MeansResult means",
    "tasks.probes.probe": "ProbeResult probe",
    "tasks.tuned_lens.tune": "TuneResult tune",
    "analysis.analyze": "AnalyzeResult Missing analyze",
    "analysis.atlas.atlas": "Atlas atlas",
    "analysis.comparison.compare": "Comparison compare",
    "analysis.registry": "EXPERIMENTS",
    "analysis.reliability": "ReliabilityResult reliability",
    "render.folders.figures": "figures",
}
_HOMES = {name: f"classlens.{module}" for module, names in _MODULES.items() for name in names.split()}
__all__ = ["ClasslensError", "__version__", *_HOMES, *EDITS]

_RENDERERS = {
    "inspection record": "inspection_record:inspection",
    "inspection folder": "folders.inspection:write_inspection",
    "inspection": "notebook.inspection:inspection_html",
    "trace": "notebook.trace:trace_html",
    "trajectory": "notebook.trajectory:trajectory_html",
    "atlas": "notebook.atlas:atlas_html",
    "measurement": "notebook.results:measurement_html",
    "evaluation": "notebook.results:evaluation_html",
    "ablation": "notebook.results:ablation_html",
    "reliability": "notebook.results:reliability_html",
}
for _name, _row in _RENDERERS.items():
    RENDERERS.register(_name, f"classlens.render.{_row}")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("classlens")
        except PackageNotFoundError:  # a source tree that is not installed
            return "0+unknown"
    if name in _HOMES:
        from importlib import import_module

        try:
            return getattr(import_module(_HOMES[name]), name)
        except ImportError as error:
            raise_missing_extra(f"classlens.{name}", error)
            raise
    if name in EDITS:
        return EDITS[name]
    raise AttributeError(f"module 'classlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
