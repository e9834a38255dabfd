"""Whether files of weights are on this machine, without network access."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlparse

import torch
from huggingface_hub import try_to_load_from_cache


def in_hub_cache(repository: str, files: Iterable[str]) -> bool:
    """Whether one of the files of a Hugging Face repository (``owner/name`` or ``owner/name@revision``) is cached."""
    name, _, revision = repository.partition("@")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files)


def in_torch_hub(url: str) -> bool:
    """Whether torch.hub's cache has the file of a URL."""
    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path)))
