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
        "masking_black": f"{_PACKAGE}.masking_black:METRIC",
        "masking_blur": f"{_PACKAGE}.masking_blur:METRIC",
        "segmentation": f"{_PACKAGE}.segmentation:METRIC",
        "pointing": f"{_PACKAGE}.pointing:METRIC",
        "class_sensitivity": f"{_PACKAGE}.class_sensitivity:METRIC",
        "randomization": f"{_PACKAGE}.randomization:METRIC",
        "completeness": f"{_PACKAGE}.completeness:METRIC",
    },
)
