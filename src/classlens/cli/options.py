"""Options that several commands share: dataclasses whose fields become options of a command."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from classlens.errors import ClasslensError

Out = Annotated[Path, typer.Option(help="Output folder.")]


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Sources of the weights and classes of a model."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights: a file, an index of shards, a folder, or an adapter of peft."),
    ] = None
    num_classes: Annotated[int | None, typer.Option(min=1, help="Number of classes, where no file tells it.")] = None
    img_size: Annotated[
        str | None, typer.Option(help="Input size: one number, or HEIGHT,WIDTH; the checkpoint's when left out.")
    ] = None
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a timm backbone.")] = None
    classes: Annotated[Path | None, typer.Option(help="File of class names: one per line, or JSON.")] = None
    templates: Annotated[
        Path | None, typer.Option(help="File of prompts for an OpenCLIP model: one per line, {} is the class.")
    ] = None
    multi_label: Annotated[
        bool,
        typer.Option("--multi-label", help="Outputs are labels with a sigmoid each; one output is two classes."),
    ] = False
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None

    def load_options(self, model: str) -> dict[str, Any]:
        """Arguments of ``classlens.load`` beside the model."""
        from classlens.models.adapter import adapter_of_name

        if self.templates is not None and not adapter_of_name(model).takes_templates:
            raise ClasslensError(f"--templates goes with an OpenCLIP model, not with {model!r}: leave it out")
        options: dict[str, Any] = {} if self.templates is None else {"templates": self.templates}
        if self.img_size is not None:
            size = tuple(int(side) for side in _numbers("--img-size", self.img_size, (1, 2)))
            options["img_size"] = size[0] if len(size) == 1 else size
        return {
            **options,
            "checkpoint": self.checkpoint,
            "num_classes": self.num_classes,
            "head": self.head,
            "class_names": self.classes,
            "multi_label": self.multi_label or None,
            "device": self.device,
        }


@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightOptions):
    """Options of a model and of its images."""

    transform: Annotated[
        str | None, typer.Option(help='"paper" for the transform of the paper, or file.py:function for yours.')
    ] = None
    crop_pct: Annotated[float | None, typer.Option(help="Share of the shorter side that the center crop keeps.")] = None
    interpolation: Annotated[str | None, typer.Option(help="Interpolation of the resize: bicubic, bilinear …")] = None
    mean: Annotated[str | None, typer.Option(help="Mean of colors from 0 to 1: one number, or R,G,B.")] = None
    std: Annotated[str | None, typer.Option(help="Standard deviation of colors: one number, or R,G,B.")] = None
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")] = None

    def load_options(self, model: str) -> dict[str, Any]:
        return {
            **super().load_options(model),
            "transform": self.transform,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": None if self.mean is None else _numbers("--mean", self.mean),
            "std": None if self.std is None else _numbers("--std", self.std),
            "dtype": self.dtype,
        }


def _numbers(option: str, text: str, counts: tuple[int, ...] = ()) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (counts and (len(numbers) not in counts or not all(number.is_integer() for number in numbers))):
        expected = (
            "one whole number, or two as HEIGHT,WIDTH" if counts else "one number, or one a channel, as 0.5,0.5,0.5"
        )
        raise ClasslensError(f"{option} {text!r} is not understood: give {expected}")
    return numbers


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run over a data set."""

    batch_size: Annotated[str, typer.Option(help="Images per forward pass: auto, 1 to 64, or a multiple of 64.")] = (
        "auto"
    )
    workers: Annotated[int | None, typer.Option(min=0, help="Number of processes that decode images.")] = None
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Record and skip unreadable images and masks.")] = False
    engine: Annotated[str, typer.Option(help="Where the model runs: local or ray.")] = "local"
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster: auto or ray://HOST:10001.")] = None
    actors: Annotated[int | None, typer.Option(min=1, help="Number of copies of the model on the cluster.")] = None
    gpus: Annotated[float | None, typer.Option(min=0, help="Number of GPUs per copy, such as 0.5.")] = None
    log_json: Annotated[bool, typer.Option("--log-json", help="Print progress and result as JSON lines.")] = False

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``measure``, ``evaluate``, ``probe``, ``tune`` and ``means``."""
        from classlens.engine.ray import Cluster

        size = int(self.batch_size) if self.batch_size.isdecimal() else self.batch_size
        return {
            "batch_size": size,
            "workers": self.workers,
            "skip_bad": self.skip_bad,
            "engine": self.engine,
            "cluster": Cluster(self.address, self.actors, self.gpus),
        }


Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")]
Model = Annotated[str, typer.Option(help="Model name, as for inspect.")]
Data = Annotated[str, typer.Option(help="Images as LAYOUT:PLACE, such as folder:ROOT; layouts: {layouts}.")]
Split = Annotated[str | None, typer.Option(help="Split of the data, such as validation.")]
PerClass = Annotated[int | None, typer.Option(help="Maximum number of images per class.")]
Limit = Annotated[int | None, typer.Option(help="Maximum number of images, spread evenly over classes.")]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of a .csv or hf: table that has the classes; none for images without labels.")
]
Masks = Annotated[
    Path | None,
    typer.Option(help="Folder of masks of the class, named as the images, ending in .png, .bmp or .npy."),
]
MaskValues = Annotated[
    str | None,
    typer.Option(help='Meaning of the values of masks: "object=1,3 ignore=255", or in colors as "object=#ff0000".'),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder of .npy maps of another tool, named as the images; as NAME=FOLDER, NAME:sign=absolute=FOLDER or "
        "FOLDER. May be given several times."
    ),
]
Shuffle = Annotated[bool, typer.Option("--shuffle", help="Draw images with --seed; else the first in order of names.")]
TunedLensFile = Annotated[Path | None, typer.Option(help="File of `classlens tune`, for the condition tuned_lens.")]
Ram = Annotated[str, typer.Option(help="RAM beside the model, such as 8GB.")]
Permutations = Annotated[int, typer.Option(help="Number of permutations per test.")]
Resamples = Annotated[int, typer.Option(help="Number of bootstrap resamples per interval.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of intervals.")]


def split_names(text: str) -> str | tuple[str, ...]:
    """Names between commas; ``all`` as it is."""
    return text if text == "all" else tuple(part.strip() for part in text.split(",") if part.strip())


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Make the fields of every parameter that is a dataclass options of the command."""
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: hint for name, hint in hints.items() if name in signature.parameters and is_dataclass(hint)
    }
    own, shared, annotations = [], [], {}
    for name, parameter in signature.parameters.items():
        group = groups.get(name)
        if group is None:
            own.append(parameter.replace(annotation=hints[name]))
            annotations[name] = hints[name]
            continue
        types = get_type_hints(group, include_extras=True)
        for field in fields(group):
            annotations[field.name] = types[field.name]
            shared.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
                )
            )

    @wraps(command)
    def run(**values: Any) -> None:
        built = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        if any(issubclass(group, WeightOptions) for group in groups.values()):
            _import_models()
        command(**values, **built)

    own.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
    )
    run.__annotations__ = annotations
    return run


def _import_models() -> None:
    """Import the libraries of models, once, without collections of garbage: they make many objects and no garbage."""
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        import classlens.lens.load  # noqa: F401
    finally:
        gc.freeze()  # later collections pass over these objects
        gc.enable()
