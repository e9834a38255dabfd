"""Weights from a user's file, loaded without running code in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor, nn

from classlens.errors import ClasslensError

State = dict[str, Tensor]


def read_state(path: str | Path) -> State:
    """The state dict in a safetensors or torch file, without wrappers (``state_dict``, ``model``, EMA, ``module.``).

    Only tensors are loaded (``weights_only=True``); raises ClasslensError for a pickle that holds more.
    """
    file = Path(path)
    if not file.is_file():
        raise ClasslensError(f"checkpoint {str(path)!r} is not a file: give the path of a .safetensors or .pth file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on odd pickles; the error below gives the way out
            state: State = load_state_dict(str(file), weights_only=True)
        # Wrappers of wrappers (a compiled module in DistributedDataParallel) stay on in some versions of timm.
        state = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in state.items()}
    except AttributeError:  # a valid file whose content has no names
        state = {}
    except Exception as error:  # a broken file makes torch raise almost anything
        # timm wraps torch's refusal of a pickle that needs more than tensors.
        if not isinstance(error.__cause__ or error, pickle.UnpicklingError) or not _is_pickle(file):
            raise _unreadable(path) from None
        raise ClasslensError(
            f"checkpoint {str(path)!r} holds pickled Python objects, which could run code when loaded: where you trust "
            'it, convert it once with torch.save(torch.load(FILE, weights_only=False)["state_dict"], "weights.pth") '
            "and give that file"
        ) from None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ClasslensError(
            f"checkpoint {str(path)!r} holds no state dict: expected names with tensors, as in model.state_dict()"
        )
    return state


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
    if problems:
        raise ClasslensError(
            f"checkpoint {str(path)!r} does not fit the model: {' and '.join(problems)}; give the model name and "
            "num_classes that it was trained with"
        )
    module.load_state_dict(state, strict=False)


def _unreadable(path: str | Path) -> ClasslensError:
    return ClasslensError(
        f"checkpoint {str(path)!r} cannot be read: expected a whole .safetensors file or a torch state dict; check "
        "that it is complete"
    )


def _is_pickle(file: Path) -> bool:
    """Whether a file has a form of torch's: a zip archive with a pickle or, from before 2020, a bare pickle."""
    with file.open("rb") as stream:
        return zipfile.is_zipfile(stream) or (stream.seek(0) == 0 and stream.read(1) == pickle.PROTO)
