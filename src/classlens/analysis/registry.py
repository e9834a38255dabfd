"""All experiments, in the order in which the paper's argument goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from classlens.analysis.experiment import Experiment
from classlens.analysis.experiments import (
    agreement_accuracy,
    agreement_by_class,
    attention_edits,
    building,
    change_rate,
    class_value_agreement,
    class_vs_context,
    composition,
    compositionality,
    context_removal,
    decoders,
    evolution,
    identifiability,
    key_value_agreement,
    mean_evolution,
)
from classlens.errors import ClasslensError, unknown

EXPERIMENTS: Mapping[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        identifiability,
        evolution,
        mean_evolution,
        change_rate,
        class_vs_context,
        attention_edits,
        context_removal,
        building,
        composition,
        class_value_agreement,
        key_value_agreement,
        agreement_by_class,
        agreement_accuracy,
        compositionality,
        decoders,
    )
}


def select_experiments(names: Collection[str] | None) -> list[Experiment]:
    """The experiments of these names, all for None, always in the order of the table."""
    if names is None:
        return list(EXPERIMENTS.values())
    for name in names:
        if name not in EXPERIMENTS:
            raise unknown("experiment", name, EXPERIMENTS, give="some of")
    if not names:
        raise ClasslensError(f"no experiment was given: give some of {', '.join(EXPERIMENTS)}")
    return [experiment for name, experiment in EXPERIMENTS.items() if name in names]
