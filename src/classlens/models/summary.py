"""One line on a loaded model: input, transform and classes."""

from __future__ import annotations

import logging

from classlens.models.classes import Classes
from classlens.models.load import LoadedModel
from classlens.models.recipe import read_recipe
from classlens.models.transforms import Transform

logger = logging.getLogger("classlens")


def summary(loaded: LoadedModel) -> str:
    """Input size, tokens, transform and classes.

    Examples:
        >>> from classlens.models.load import load_model
        >>> summary(load_model("builtin:cifar10", mean=0.5, std=0.5))
        '32×32, 8×8 tokens; resize 32, center crop 32, mean 0.5; 10 classes, named by the model'
    """
    (height, width), (rows, columns) = loaded.view.input_size, loaded.view.grid(loaded.view.input_size)
    return (
        f"{height}×{width}, {rows}×{columns} tokens; {_transform(loaded.preprocessing.transform)}; "
        f"{_classes(loaded.classes, loaded.named_by)}"
    )


def announce(loaded: LoadedModel) -> None:
    """Log the summary as information, and what a user has to know as warnings."""
    logger.info("%s", summary(loaded))
    for note in loaded.notes:
        logger.warning("%s", note)


def _transform(transform: Transform | None) -> str:
    if transform is None:
        return "no transform for photos"
    recipe = read_recipe(transform)
    return "a transform of other steps" if recipe is None else str(recipe)


def _classes(classes: Classes, named_by: str | None) -> str:
    count = f"{len(classes)} class{'es' if len(classes) != 1 else ''}"
    if named_by is None:
        return f"{count} without names"
    return f"{count}, named by {named_by}" if named_by in ("the model", "you") else f"{count} from {named_by}"
