"""Metrics by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.tasks.evaluation.metric import Metric

_PACKAGE = "classlens.tasks.evaluation.metrics"
METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "removal": f"{_PACKAGE}.removal:METRIC",
        "masking": f"{_PACKAGE}.masking:METRIC",
        "masking_black": f"{_PACKAGE}.masking:BLACK",
        "masking_blur": f"{_PACKAGE}.masking:BLUR",
        "insertion": f"{_PACKAGE}.insertion:METRIC",
        "insertion_black": f"{_PACKAGE}.insertion:BLACK",
        "insertion_blur": f"{_PACKAGE}.insertion:BLUR",
        "deletion": f"{_PACKAGE}.deletion:METRIC",
        "deletion_black": f"{_PACKAGE}.deletion:BLACK",
        "deletion_blur": f"{_PACKAGE}.deletion:BLUR",
        "road": f"{_PACKAGE}.road:METRIC",
        "average_drop": f"{_PACKAGE}.average_drop:METRIC",
        "segmentation": f"{_PACKAGE}.segmentation:METRIC",
        "pointing": f"{_PACKAGE}.pointing:METRIC",
        "class_sensitivity": f"{_PACKAGE}.class_sensitivity:METRIC",
        "randomization": f"{_PACKAGE}.randomization:METRIC",
        "completeness": f"{_PACKAGE}.completeness:METRIC",
    },
)
