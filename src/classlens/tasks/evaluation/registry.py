"""All measures of faithfulness in one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from classlens.errors import ClasslensError, unknown
from classlens.lens.lens import Lens
from classlens.tasks.evaluation.masking import Masking
from classlens.tasks.evaluation.metric import Metric
from classlens.tasks.evaluation.pointing import Pointing
from classlens.tasks.evaluation.removal import Removal
from classlens.tasks.evaluation.sanity import ClassSensitivity, Completeness, Randomization
from classlens.tasks.evaluation.segmentation import Segmentation

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Removal(),
        Masking(),
        Segmentation(),
        Pointing(),
        ClassSensitivity(),
        Randomization(),
        Completeness(),
    )
}


def select_metrics(
    names: Collection[str] | None, lens: Lens, *, masks: bool, twin: bool
) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """The metrics that are asked for, all that can be measured when left out; and why others cannot.

    Raises ClasslensError for a name that is not known, and for one asked for that cannot be measured.
    """
    for name in names or ():
        if name not in METRICS:
            raise unknown("metric", name, METRICS, give="some of")
    if names is not None and not names:
        raise ClasslensError(f"no metrics were given: give some of {', '.join(METRICS)}")
    lacking = {name: why for name, metric in METRICS.items() if (why := metric.lacks(lens, masks=masks, twin=twin))}
    for name in names or ():
        if name in lacking:
            raise ClasslensError(f"metric {name!r} cannot be measured: {lacking[name]}; leave it out")
    wanted = [metric for name, metric in METRICS.items() if name in (METRICS if names is None else names)]
    return tuple(metric for metric in wanted if metric.name not in lacking), {} if names else lacking
