"""Functions of users as methods: their maps, and a model that stays as it was whatever they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import classlens
from classlens.errors import ClasslensError
from classlens.explain.registry import find_method, parse_method, short_name, split_method
from classlens.forward.model_state import ModelState
from tests import zoo
from tests.refusals import refused

NAME = "cls_not_square"
SIZE, GRID = zoo.VARIANTS[NAME].size, zoo.VARIANTS[NAME].grid
IMAGES = 3


def trace_of(model: nn.Module | None = None, **options: Any) -> classlens.Trace:
    return classlens.load(model or zoo.build(NAME)).trace(zoo.pixels(NAME, IMAGES), **options)


def gradient(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    """Gradients by autograd, left on the parameters as ``backward`` does."""
    pixels.requires_grad_()
    model(pixels).gather(1, target[:, None]).sum().backward()
    assert pixels.grad is not None
    return pixels.grad


def blocks_of(values: Any) -> Any:
    """Means over the pixels of each token."""
    height, width = SIZE[0] // GRID[0], SIZE[1] // GRID[1]
    return values.reshape(len(values), GRID[0], height, GRID[1], width).mean(axis=(2, 4))


def test_maps_of_a_function() -> None:
    model, target = zoo.build(NAME), torch.tensor([1, 4, 2])
    pixels = zoo.pixels(NAME, IMAGES).requires_grad_()
    model(pixels).gather(1, target[:, None]).sum().backward()
    summed = pixels.grad.sum(dim=1).numpy()
    assert summed.dtype == np.float64
    # The batch of two leaves one image over.
    trace = trace_of(batch_size=2)
    maps = trace.map(target, method=gradient)
    np.testing.assert_allclose(maps, blocks_of(summed), rtol=0, atol=1e-10 * np.abs(summed).max())
    assert (maps.attrs["method"], maps.name) == ("gradient", "importance")
    for sign, expected in {"absolute": np.abs(summed), "positive": np.maximum(summed, 0)}.items():
        signed = trace.map(target, method=gradient, sign=sign)
        np.testing.assert_allclose(signed, blocks_of(expected), rtol=0, atol=1e-10 * np.abs(summed).max())
        assert signed.attrs["sign"] == sign
    lens = classlens.load(model)
    all_at_once = lens.explain(zoo.pixels(NAME, IMAGES), target, method=gradient)
    np.testing.assert_allclose(all_at_once, trace.explain(target, method=gradient), rtol=0, atol=1e-14)
    predicted = trace.explain(method=gradient)
    assert predicted.dims == ("image", "token")
    np.testing.assert_array_equal(predicted.target, trace.predictions)


@pytest.mark.parametrize("form", ["tensor", "array", "channel", "half"])
def test_forms_of_maps(form: str) -> None:
    values = torch.arange(IMAGES * 3 * 2, dtype=torch.float32).reshape(IMAGES, 3, 2)
    forms: dict[str, Any] = {
        "tensor": values,
        "array": values.numpy(),
        "channel": values[:, None],
        "half": values.bfloat16(),
    }

    def given(model: object, pixels: Tensor, target: Tensor) -> Any:
        assert (pixels.requires_grad, target.dtype, len(pixels)) == (False, torch.int64, len(target))
        return forms[form]

    assert trace_of().map(0, method=given).values.tolist() == values.tolist()


def test_drawn_numbers_are_the_same_at_every_call() -> None:
    def drawn(model: object, pixels: Tensor, target: Tensor) -> Tensor:
        return torch.rand(len(pixels), *GRID)

    trace = trace_of()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = trace.map(0, method=drawn)
    assert torch.equal(torch.rand(2), expected)
    np.testing.assert_array_equal(trace.map(0, method=drawn), first)


def hooked(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.blocks[0].register_full_backward_hook(lambda *_: None)
    return pixels


def training(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.blocks[1].train()
    return pixels


def in_place(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.blocks[1].mlp.fc1.weight.data[-1, -1] += 1  # not seen by versions, nor by first values
    return pixels


def another_parameter(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.head.bias = nn.Parameter(torch.zeros_like(model.head.bias))
    return pixels


def another_part(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.blocks[0].mlp = nn.Identity()
    return pixels


def another_forward(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.norm.forward = lambda x: x
    return pixels


def another_class(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    setattr(nn.Linear, "forward", lambda self, x: x)  # noqa: B010
    return pixels


def another_scale(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    model.blocks[0].attn.scale = 0.0
    return pixels


def another_type(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    nn.utils.parametrizations.weight_norm(model.head)
    return pixels


LEFT: dict[Callable[..., Tensor], str] = {
    hooked: "left a hook on part 'blocks.0'",
    training: "left part 'blocks.1' in training mode",
    in_place: "left other values of 'blocks.1.mlp.fc1.weight'",
    another_parameter: "left other weights or parts in part 'head'",
    another_part: "left other weights or parts in part 'blocks.0'",
    another_forward: "left another forward of part 'norm'",
    another_scale: "left another scale of part 'blocks.0.attn'",
    another_type: "left other weights or parts in part 'head'",
    another_class: "left another forward of every Linear",
}


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("function", LEFT, ids=lambda function: function.__name__)
def test_what_a_function_leaves_behind(function: Callable[..., Tensor], raises: bool) -> None:
    def failing(*args: Any) -> Tensor:
        function(*args)
        raise RuntimeError("out of luck.")

    model, linear = zoo.build(NAME), nn.Linear.forward
    expected = model(zoo.pixels(NAME)).detach()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trace = trace_of(model)
    before = ModelState.of(model)
    modes = [part.training for part in model.modules()]
    try:
        if raises:
            with pytest.raises(ClasslensError, match=r"'failing' raised RuntimeError \(out of luck\)") as caught:
                trace.explain(0, method=failing)
            assert isinstance(caught.value.__cause__, RuntimeError)
        else:
            refused(lambda: trace.explain(0, method=function), f"'{function.__name__}' {LEFT[function]}", "put back")
        assert nn.Linear.forward is linear
    finally:
        setattr(nn.Linear, "forward", linear)  # noqa: B010
    assert ModelState.of(model).hooks == before.hooks
    assert not any(part._backward_hooks for part in model.modules())
    assert [part.training for part in model.modules()] == modes
    assert type(model.head) is nn.Linear
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(zoo.pixels(NAME)), expected)
    trace_of(model).explain(0, method=gradient)  # parameters are those of the loaded model


def test_gradients_of_parameters_stay_the_users() -> None:
    model: Any = zoo.build(NAME)
    model.head.bias.requires_grad_(False)
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    trace_of(model).explain(0, method=gradient)
    assert torch.equal(model.norm.weight.grad, torch.ones_like(model.norm.weight))
    assert model.norm.bias.grad is None
    assert not model.head.bias.requires_grad


@pytest.mark.parametrize(
    ("returned", "parts"),
    [
        (lambda pixels: 3, ("returned a int", "[image, row, column] of 3 images")),
        (lambda pixels: pixels[:2], ("torch.float64 of shape [2, 3, 24, 16]", "expected importance")),
        (lambda pixels: pixels[:, 0, 0], ("of shape [3, 16]",)),
        (lambda pixels: pixels[:, :2], ("of shape [3, 2, 24, 16]",)),
        (lambda pixels: pixels[..., :0], ("of shape [3, 3, 24, 0]",)),
        (lambda pixels: pixels / 0, ("not finite",)),
        (lambda pixels: pixels[:, 0] * 1j, ("complex",)),
        (lambda pixels: pixels * 1j, ("complex",)),
        (lambda pixels: np.array(["a"]), ("an array of <U1",)),
    ],
)
def test_what_is_no_map(returned: Callable[[Tensor], Any], parts: tuple[str, ...]) -> None:
    def given(model: object, pixels: Tensor, target: Tensor) -> Any:
        return returned(pixels)

    refused(lambda: trace_of().explain(0, method=given), "method 'given'", *parts)


def test_options_and_names() -> None:
    trace = trace_of()
    refused(lambda: trace.explain(0, method=gradient, sign="negative"), "sign 'negative' is not known", "absolute")
    refused(lambda: trace.explain(0, method=gradient, against=1), "'gradient' has no option 'against'", "sign")

    def chefer(model: object, pixels: Tensor, target: Tensor) -> Tensor:
        return pixels

    refused(lambda: trace.explain(0, method=chefer), "method 'chefer' is one of classlens", "rename")
    assert short_name(partial(gradient)) == "gradient"
    assert short_name("a:b/tool.py:lrp:sign=absolute") == "lrp:sign=absolute"
    assert split_method("a:b/tool.py:lrp:sign=absolute") == ("a:b/tool.py:lrp", {"sign": "absolute"})


FILE = "def constant(model, pixels, target):\n    return pixels.new_full((len(pixels), 2, 2), {})\n"


def test_functions_in_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "tool.py"
    file.write_text(FILE.format(1))
    name, trace = f"{file}:constant", trace_of()
    assert parse_method(f"{name}:sign=absolute") == (name, {"sign": "absolute"})
    assert (trace.explain(0, method=name) == 1).all()
    assert find_method(name) is find_method(name)
    file.write_text(FILE.format(2))
    assert (trace.explain(0, method=name) == 2).all()
    refused(lambda: trace.explain(0, method=f"{file}:konstant"), "no function 'konstant'", "did you mean 'constant'")
    refused(lambda: trace.explain(0, method=f"{tmp_path}/none.py:constant"), "none.py' is not a file")
    file.write_text("1 / 0")
    with pytest.raises(ClasslensError, match="raised ZeroDivisionError"):
        trace.explain(0, method=name)


def test_within_an_edit() -> None:
    """The function sees the edited model, and the trace remembers the edit."""
    lens = classlens.load(zoo.build(NAME))
    edit = classlens.AblateHeads([0], blocks=[0])
    with lens.edit(edit):
        trace = lens.trace(zoo.pixels(NAME, IMAGES))
        edited = trace.explain(0, method=gradient)
    assert not np.allclose(edited, trace_of().explain(0, method=gradient))
    refused(lambda: trace.explain(0, method=gradient), "ran with AblateHeads")


@pytest.mark.parametrize(
    "form",
    [
        lambda maps: maps[:, ::-1][:, ::-1],
        lambda maps: maps.astype(">f8"),
        lambda maps: np.asfortranarray(maps),
        lambda maps: torch.from_numpy(maps).to_sparse(),
    ],
    ids=["reversed", "big-endian", "columns first", "sparse"],
)
def test_arrays_in_memory_of_any_kind(form: Callable[[Any], Any]) -> None:
    maps = np.random.default_rng(0).normal(size=(IMAGES, *GRID))
    given = trace_of().map(0, method=lambda model, pixels, target: form(maps))
    np.testing.assert_array_equal(given, maps.astype(given.dtype))


def test_one_logit_for_two_classes_is_refused() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=1)
    trace = classlens.load(model, multi_label=True).trace(torch.zeros(1, 3, 32, 32))
    refused(lambda: trace.map(0, method=gradient), "method 'gradient'", "one logit for two classes")


def test_digests_tell_settings_apart() -> None:
    def scaled(model: Any, pixels: Tensor, target: Tensor, by: float = 1) -> Tensor:
        return pixels * by

    class Tool:
        def __init__(self, by: float) -> None:
            self.by = by

        def __call__(self, model: Any, pixels: Tensor, target: Tensor) -> Tensor:
            return pixels * self.by

    makers: list[Callable[[float], Any]] = [lambda by: partial(scaled, by=by), Tool]
    for make in makers:
        digests = [find_method(make(by)).digest for by in (1, 2, 1)]  # type: ignore[attr-defined]
        assert digests[0] == digests[2] != digests[1]
