"""Weights from a user's file: read without running code in it, and put into a model that they fit."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from classlens.errors import ClasslensError
from classlens.models.file_kinds import is_safetensors, whole_pickle, why_not_weights
from classlens.models.weight_files import INDEX, read_shards, weight_file

State = dict[str, Tensor]
Tree = Mapping[Any, Any]
"""The content of a file: names with tensors, with numbers, or with more of these."""


def read_tree(path: str | Path) -> Tree:
    """All that a safetensors or torch file, the shards of an index, or the one of these in a folder holds.

    Only tensors and plain Python values are loaded (``weights_only=True``); raises ClasslensError for a pickle that
    holds more, and for another kind of file.
    """
    file = weight_file(Path(path))
    if file.name.endswith(INDEX) and file.is_file():
        return read_shards(file, read_tree)
    if not file.is_file():
        raise ClasslensError(
            f"checkpoint {str(path)!r} is not a file: give the path of a .safetensors or .pth file, of an index of "
            "shards, or of a folder with weights"
        )
    reason = why_not_weights(file)
    if reason is not None:
        raise ClasslensError(f"checkpoint {str(path)!r} {reason}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # torch's remarks on odd pickles; the error below gives the way out
            content: object = (
                load_file(file)
                if is_safetensors(file)
                else torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
            )
    except Exception as error:  # a broken file makes torch raise almost anything
        if not isinstance(error, pickle.UnpicklingError) or not _is_pickle(file):
            raise ClasslensError(
                f"checkpoint {str(path)!r} cannot be read: expected a whole .safetensors file or a torch state dict; "
                "check that it is complete"
            ) from None
        raise ClasslensError(f"checkpoint {str(path)!r} {whole_pickle(file)}") from None
    return content if isinstance(content, Mapping) else {}


def apply_state(
    module: nn.Module, state: State, path: str | Path, convert: Callable[[State, nn.Module], State] | None = None
) -> None:
    """Load a state dict into a model; raises ClasslensError with the first keys that do not fit."""
    if convert is not None:
        # After a failed conversion the comparison of keys and shapes below finds the mistake.
        with suppress(RuntimeError, ValueError, KeyError, IndexError, AttributeError):
            state = convert(state, module)
    expected = module.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    problems = []
    if missing:
        problems.append(f"{len(missing)} keys of the model are missing, first {missing[0]!r}")
    if unexpected:
        problems.append(f"{len(unexpected)} keys are unexpected, first {unexpected[0]!r}")
    for key, value in expected.items():
        if not problems and key in state and state[key].shape != value.shape:
            problems.append(f"{key!r} has shape {list(state[key].shape)} where the model has {list(value.shape)}")
    for key, value in state.items():
        if value.is_quantized or (key in expected and expected[key].is_floating_point() > value.is_floating_point()):
            raise ClasslensError(
                f"checkpoint {str(path)!r} is of a quantized model ({key!r} holds {str(value.dtype)[6:]} numbers): "
                "give the weights from before the quantization"
            )
    if problems:
        raise ClasslensError(
            f"checkpoint {str(path)!r} does not fit the model: {' and '.join(problems)}; give the model name and "
            "num_classes that it was trained with"
        )
    module.load_state_dict(state, strict=False)


def _is_pickle(file: Path) -> bool:
    """Whether a file has a form of torch's: a zip archive with a pickle or, from before 2020, a bare pickle."""
    with file.open("rb") as stream:
        return zipfile.is_zipfile(stream) or (stream.seek(0) == 0 and stream.read(1) == pickle.PROTO)
