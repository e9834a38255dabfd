"""A plan of edits as code that runs as it stands: Python, and a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from classlens.models.classes import Classes
from classlens.render.edit_record.fields import Value, edit_options
from classlens.render.edit_record.plan import EditPlan, PlannedEdit

_FLAGS = {"class_names": "--classes"}
"""Options of ``classlens.load`` whose flag has another name."""


@dataclass(frozen=True)
class Setting:
    """The model and photos that the code of a plan names.

    Args:
        model: name of the model, as for ``classlens.load``.
        options: further arguments of ``classlens.load``; those that are None are left out.
        photo: file of the photo.
        source: file of the photo that patches come from, if any.
        means: file of the means, if any.
    """

    model: str
    photo: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    means: str | None = None


def as_python(plan: EditPlan, setting: Setting, *, target: int, tokens: int, classes: Classes) -> str:
    """Python that runs the photo with and without the edits, in variables ``original`` and ``edited``.

    ``target`` is the class of interest, ``tokens`` the number of tokens of the photo.
    """
    photo = _quoted(setting.photo)
    edits = "\n".join(f"    {_call(edit, setting, tokens)}," for edit in plan.edits)
    paths = any(isinstance(value, PurePath) for value in setting.options.values())
    masks = any(edit.takes("mask") for edit in plan.edits)
    imports = [
        *(["from pathlib import Path", ""] if paths else []),
        "import classlens",
        *(["import torch"] if masks else []),
    ]
    options = "".join(f", {key}={_argument(value)}" for key, value in _given(setting.options))
    means = [f"means = classlens.load_means({_quoted(setting.means or 'means.safetensors')})"] if plan.means else []
    map_options = "" if plan.against is None else f", against={plan.against}"
    return "\n".join(
        [
            *imports,
            "",
            f"lens = classlens.load({_quoted(setting.model)}{options})",
            *means,
            *(["", *_helper(tokens)] if masks else []),
            f"edits = [\n{edits}\n]" if plan.edits else "edits = []",
            f"target = {target}  # {_comment(classes.names[target])}",
            f"original = lens.trace({photo})",
            "with lens.edit(*edits):",
            f"    edited = lens.trace({photo})",
            f"    picture = edited.map(target{map_options})",
            "for trace in (original, edited):",
            "    print(trace.predictions.class_name.item(), float(trace.model_logits[0, target]))",
            "",
        ]
    )


def as_command(plan: EditPlan, setting: Setting, *, target: int, classes: Classes) -> str:
    """The command that writes the report of the edited pass."""
    words = ["classlens", "inspect", _file(setting.photo), "--model", setting.model]
    for key, value in _given(setting.options):
        flag = _FLAGS.get(key, f"--{key.replace('_', '-')}")
        words += [flag] if value is True else [flag, _text(value)]
    words += ["--class", _class(target, classes)]
    if plan.against is not None:
        words += ["--against", _class(plan.against, classes)]
    for edit in plan.edits:
        words += ["--edit", edit.text]
    if plan.means:
        words += ["--edit-means", setting.means or "means.safetensors"]
    if plan.patches:
        words += ["--edit-source", _file(setting.source or "source.png")]
    return shlex.join(words)


def _helper(tokens: int) -> Iterator[str]:
    yield from (
        "",
        "def keep(*indices):",
        f"    mask = torch.zeros({tokens}, dtype=torch.bool)",
        "    mask[list(indices)] = True",
        "    return mask",
        "",
        "",
    )


def _call(edit: PlannedEdit, setting: Setting, tokens: int) -> str:
    arguments = []
    for name, option in edit_options(edit.name).items():
        if option.kind == "source":
            arguments.append(f"{name}=lens.trace({_quoted(setting.source or 'source.png')}).pixels")
        elif name in edit.options:
            value = edit.options[name]
            text = "means" if option.kind == "replacement" and value == "means" else _value(value)
            arguments.append(f"{name}={_mask(value, tokens) if option.kind == 'mask' else text}")
    return f"classlens.{edit.name}({', '.join(arguments)})"


def _mask(kept: Value, tokens: int) -> str:
    """The tokens to keep, as the arguments of ``keep``, with ranges."""
    assert isinstance(kept, tuple)
    runs: list[list[int]] = []
    for number in kept:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(low) if low == high else f"*range({low}, {high + 1})" for low, high in runs]
    return f"keep({', '.join(parts)})"


def _value(value: Value) -> str:
    return repr(list(value)) if isinstance(value, tuple) else _quoted(value)


def _given(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in options.items() if value is not None and value is not False)


def _argument(value: Any) -> str:
    return f"Path({_quoted(str(value))})" if isinstance(value, PurePath) else _quoted(value)


def _quoted(value: Any) -> str:
    """A value as Python has it; a text on one line, in double quotes where it holds none."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and text.startswith("'") and '"' not in text else text


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _file(name: str) -> str:
    """A file that the command line does not take for an option."""
    return f"./{name}" if name.startswith("-") else name


def _class(index: int, classes: Classes) -> str:
    """The index, or the name where a class has the index of another one as its name."""
    return str(index) if classes.of_name(str(index)) in ([], [index]) else classes.names[index]


def _comment(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
