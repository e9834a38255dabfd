"""A model that comes with classlens: an architecture, its classes, its transform and the file of its weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torchvision import transforms

from classlens.errors import ClasslensError
from classlens.models.builtin.row_quantization import restore


class BuiltinModel(NamedTuple):
    """A model of the package; its weights lie beside its file, under its name.

    Args:
        name: name after ``builtin:``.
        build: makes the untrained architecture.
        class_names: names of the classes, in order of the logits.
        image_size: side of the input in pixels.
        mean: mean of the input, by channel.
        std: standard deviation of the input, by channel.
    """

    name: str
    build: Callable[[], VisionTransformer]
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def untrained(self) -> VisionTransformer:
        """The architecture with random weights, in evaluation mode."""
        return self.build().eval()

    def trained(self) -> VisionTransformer:
        """The model in float32, in evaluation mode; its weights are stored in half precision or 8 bits."""
        with as_file(files(__package__) / f"{self.name}.safetensors") as path:
            state = restore(load_file(path))
        # Initialization draws random numbers; the caller's generator stays as it is.
        with torch.random.fork_rng(devices=[]):
            model = self.build()
        missing, unexpected = model.load_state_dict(state, strict=False)
        if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
            raise ClasslensError(
                "the built-in weights do not fit this version of timm; install timm as classlens declares it"
            )
        return model.eval()

    def transform(self) -> transforms.Compose:
        """Resize the shorter side to the side of the input, bicubic, crop the center, normalize."""
        return transforms.Compose(
            [
                transforms.Resize(self.image_size, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(self.image_size),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
            ]
        )
