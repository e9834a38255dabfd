"""All measures of faithfulness in one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from classlens.errors import ClasslensError, near
from classlens.faithful.masking import Masking
from classlens.faithful.metric import Metric
from classlens.faithful.pointing import Pointing
from classlens.faithful.removal import Removal
from classlens.faithful.sanity import ClassSensitivity, Completeness, Randomisation
from classlens.faithful.segmentation import Segmentation
from classlens.lens.lens import Lens

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Removal(),
        Masking(),
        Segmentation(),
        Pointing(),
        ClassSensitivity(),
        Randomisation(),
        Completeness(),
    )
}


def chosen(
    names: Collection[str] | None, lens: Lens, *, masks: bool, twin: bool
) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """The metrics that are asked for, all that can be measured when left out; and why others cannot.

    Raises ClasslensError for a name that is not known, and for one asked for that cannot be measured.
    """
    for name in names or ():
        if name not in METRICS:
            raise ClasslensError(
                f"metric {name!r} is not known{near(name, METRICS)}; give some of {', '.join(METRICS)}"
            )
    if names is not None and not names:
        raise ClasslensError(f"no metrics were given: give some of {', '.join(METRICS)}")
    lacking = {name: why for name, metric in METRICS.items() if (why := metric.lacks(lens, masks=masks, twin=twin))}
    for name in names or ():
        if name in lacking:
            raise ClasslensError(f"metric {name!r} cannot be measured: {lacking[name]}; leave it out")
    wanted = [metric for name, metric in METRICS.items() if name in (METRICS if names is None else names)]
    return tuple(metric for metric in wanted if metric.name not in lacking), {} if names else lacking
