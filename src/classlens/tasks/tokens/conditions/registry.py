"""Conditions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.tasks.tokens.conditions.condition import Condition

CLEAN = "clean"
"""The condition of the unedited model, to which all others are compared."""

_PACKAGE = "classlens.tasks.tokens.conditions"
CONDITIONS: Registry[Condition] = Registry(
    "condition",
    {
        CLEAN: f"{_PACKAGE}.models:CLEAN",
        "random_init": f"{_PACKAGE}.models:RANDOM_INIT",
        "self_only": f"{_PACKAGE}.attention_cuts:SELF_ONLY",
        "no_cls": f"{_PACKAGE}.attention_cuts:NO_CLS",
        "context_removed": f"{_PACKAGE}.removed_tokens:CONTEXT_REMOVED",
        "class_removed": f"{_PACKAGE}.removed_tokens:CLASS_REMOVED",
        "outliers_removed": f"{_PACKAGE}.removed_tokens:OUTLIERS_REMOVED",
        "tuned_lens": f"{_PACKAGE}.decoders:TUNED_LENS",
        "probe": f"{_PACKAGE}.decoders:PROBE",
        "probe_pooled": f"{_PACKAGE}.decoders:PROBE_POOLED",
        "probe_logistic": f"{_PACKAGE}.decoders:PROBE_LOGISTIC",
    },
)


def decoder_conditions() -> tuple[str, ...]:
    """Conditions that decode states in another way than by the class embedding."""
    return tuple(name for name in CONDITIONS if CONDITIONS[name].decoder != "class_embedding")
