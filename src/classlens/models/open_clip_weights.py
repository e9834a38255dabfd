"""Files of OpenCLIP's weights: from its usual source, and the input size that one tells."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file

from classlens.errors import ClasslensError
from classlens.models.hub import asked_once
from classlens.models.weight_files import INDEX, weight_file
from classlens.models.weight_search import read_state, resampling


@contextmanager
def single_file(path: str | None) -> Iterator[str | None]:
    """The one file of weights that OpenCLIP takes; shards are joined in a temporary one."""
    file = None if path is None else weight_file(Path(path))
    if file is None or not file.name.endswith(INDEX):
        yield path if file is None else str(file)
        return
    state = {name: value.detach().clone().contiguous() for name, value in read_state(file).items()}
    with TemporaryDirectory() as folder:
        joined = Path(folder) / "model.safetensors"
        save_file(state, joined)
        yield str(joined)


def size_option(library: Any, architecture: str, path: str | Path | None) -> dict[str, int]:
    """The input size in the position embeddings of a file, where it is another one than the architecture's."""
    vision = library.get_model_config(architecture)["vision_cfg"]
    with suppress(ClasslensError):  # of a file that OpenCLIP may still read, or says what it misses
        state = {} if path is None else read_state(path)
        positions, patches = (state.get(f"visual.{name}") for name in ("positional_embedding", "conv1.weight"))
        if positions is not None and patches is not None and positions.ndim == 2:
            size = math.isqrt(len(positions) - 1) * patches.shape[-1]
            return {} if size == vision.get("image_size") else {"force_image_size": size}
    return {}


def resampled(library: Any, architecture: str, told: Mapping[str, int], model: Any) -> tuple[str, ...]:
    """The note on position embeddings that OpenCLIP resampled to the size of the model.

    The weights are of the size ``told`` by their file, or of the architecture's.
    """
    vision = library.get_model_config(architecture)["vision_cfg"]
    size = told.get("force_image_size", vision["image_size"])
    before = tuple(side // vision["patch_size"] for side in ((size, size) if isinstance(size, int) else size))
    after = tuple(model.visual.grid_size)
    return () if before == after else (resampling(before, after),)


def fetch(library: Any, name: str, tag_config: Mapping[str, Any], cache: str | None) -> str:
    """The file with the weights of a tag; raises ClasslensError with the way out where it cannot be had."""
    try:
        with asked_once() as why:
            path: str = library.download_pretrained(tag_config, cache_dir=cache)
    except Exception as error:  # a download may raise anything: no network, no such host, a broken file
        repository, file = os.path.split(tag_config.get("hf_hub", ""))
        where = f"{file or 'open_clip_model.safetensors'} of https://huggingface.co/{repository}"
        raise ClasslensError(
            f"pretrained weights of model {name!r} are not on this machine and could not be fetched "
            f"({why(error)}): fetch {where if repository else tag_config.get('url')} and give it as checkpoint=FILE "
            "(--checkpoint FILE), or connect to the network once"
        ) from None
    return path
