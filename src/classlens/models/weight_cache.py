"""Whether files of weights are on this machine, without asking any network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlparse

import torch
from huggingface_hub import try_to_load_from_cache


def in_hub_cache(repository: str, files: Iterable[str]) -> bool:
    """Whether one of the files of a repository of the Hugging Face hub (``owner/name``, ``@revision``) is cached."""
    name, _, revision = repository.partition("@")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files)


def in_torch_hub(url: str) -> bool:
    """Whether torch.hub has the file of this address."""
    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path)))
