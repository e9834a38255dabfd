"""All experiments, in the order of the paper's argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.analysis.experiment import Experiment

EXPERIMENTS: Registry[Experiment] = Registry(
    "experiment",
    {
        "identifiability": "classlens.analysis.experiments.identifiability:EXPERIMENT",
        "evolution": "classlens.analysis.experiments.evolution:EXPERIMENT",
        "mean_evolution": "classlens.analysis.experiments.mean_evolution:EXPERIMENT",
        "change_rate": "classlens.analysis.experiments.change_rate:EXPERIMENT",
        "class_vs_context": "classlens.analysis.experiments.class_vs_context:EXPERIMENT",
        "attention_edits": "classlens.analysis.experiments.attention_edits:EXPERIMENT",
        "context_removal": "classlens.analysis.experiments.context_removal:EXPERIMENT",
        "building": "classlens.analysis.experiments.building:EXPERIMENT",
        "composition": "classlens.analysis.experiments.composition:EXPERIMENT",
        "class_value_agreement": "classlens.analysis.experiments.class_value_agreement:EXPERIMENT",
        "key_value_agreement": "classlens.analysis.experiments.key_value_agreement:EXPERIMENT",
        "agreement_by_class": "classlens.analysis.experiments.agreement_by_class:EXPERIMENT",
        "agreement_accuracy": "classlens.analysis.experiments.agreement_accuracy:EXPERIMENT",
        "compositionality": "classlens.analysis.experiments.compositionality:EXPERIMENT",
        "decoders": "classlens.analysis.experiments.decoders:EXPERIMENT",
        "decision": "classlens.analysis.experiments.decision:EXPERIMENT",
        "decision_classes": "classlens.analysis.experiments.decision_classes:EXPERIMENT",
        "saturation": "classlens.analysis.experiments.saturation:EXPERIMENT",
        "dynamics": "classlens.analysis.experiments.dynamics:EXPERIMENT",
        "stability": "classlens.analysis.experiments.stability:EXPERIMENT",
        "norms": "classlens.analysis.experiments.norms:EXPERIMENT",
        "outliers": "classlens.analysis.experiments.outliers:EXPERIMENT",
        "outlier_classes": "classlens.analysis.experiments.outlier_classes:EXPERIMENT",
    },
)
