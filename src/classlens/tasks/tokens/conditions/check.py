"""The check that a model and its data allow some conditions."""

from __future__ import annotations

from collections.abc import Collection

from classlens.errors import ClasslensError
from classlens.models.view import ModelView
from classlens.tasks.tokens.conditions.registry import CONDITIONS

# Decoders that a run has to be given.
_DECODERS = {
    "tuned_lens": "a tuned lens: give tuned_lens=FILE (--tuned-lens), which `classlens tune` writes",
    "probes": "probes: give probes=FOLDER (--probes), the --out of `classlens probe`",
}


def check_conditions(
    names: str | Collection[str], view: ModelView, *, masks: bool, data: str, decoders: Collection[str] = ()
) -> tuple[str, ...]:
    """The conditions in the order of the registry.

    Raises ClasslensError for an unknown name, and for a condition that needs masks, a ``[CLS]`` token or one of the
    ``decoders`` where there is none.
    """
    chosen = CONDITIONS.select(names)
    for name in chosen:
        condition = CONDITIONS[name]
        if condition.needs_masks and not masks:
            raise ClasslensError(
                f"condition {name!r} needs masks that show where the class is, which data {data!r} does not have: give "
                "their folder (masks=, --masks) or data with masks, such as imagenet-s:ROOT, or leave the condition out"
            )
        if condition.needs_cls and "cls" not in view.prefix:
            raise ClasslensError(
                f"condition {name!r} needs a [CLS] token, which model {view.name!r} does not have: leave it out"
            )
        if condition.decoder in _DECODERS and condition.decoder not in decoders:
            raise ClasslensError(f"condition {name!r} needs {_DECODERS[condition.decoder]}, or leave the condition out")
    return chosen
