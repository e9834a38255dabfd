"""Values and weights of ``nn.MultiheadAttention``, which it does not show, against what it does show."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from classlens.models.torch_layers import Taps, multihead_attention, norm_maps, stepwise_attention
from tests.models.oracles import randomize


class Refused(Exception):
    pass


def refuse(reason: str) -> NoReturn:
    raise Refused(reason)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_weights_and_values_are_the_module_s_own(batch_first: bool, bias: bool) -> None:
    module = nn.MultiheadAttention(12, 3, batch_first=batch_first, bias=bias).double().eval()
    randomize(module)
    x = torch.randn(2, 5, 12, dtype=torch.float64)  # image, token, width
    given = x if batch_first else x.transpose(0, 1)
    taps: Taps = {}
    points, output, scores = multihead_attention(module, None, taps, refuse)
    seen: dict[str, Tensor] = {}
    points["attention"].module.register_forward_hook(lambda _, __, passing: seen.__setitem__("attention", passing))
    projection = points["attn_coefficients"].module
    projection.register_forward_pre_hook(lambda _, passing: seen.__setitem__("joined", passing[0]))
    with torch.no_grad():
        own, expected = module(given, given, given, need_weights=True, average_attn_weights=False)
        assert not seen, "nothing passes before it is asked for"
        with stepwise_attention(taps), stepwise_attention(taps):
            again, none = module(given, given, given, need_weights=False)
        assert "forward" not in vars(module)
        assert none is None
        torch.testing.assert_close(again, own, rtol=0, atol=1e-13)
        weights, values = seen["attention"], points["values"].read(given)
        assert weights.shape == (2, 3, 5, 5)
        read = points["attn_in"].read(given)
        assert read is not None
        assert torch.equal(read, x)
        for queries in (torch.arange(5), torch.tensor([3])):  # with keys of all tokens, and without
            rows = scores({"attn_in": x}, queries).softmax(dim=-1)
            torch.testing.assert_close(rows, expected[:, :, queries], rtol=0, atol=1e-13)
        assert values.shape == (2, 3, 5, 4)
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 5, dtype=torch.float64))
        joined = (weights @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(joined, seen["joined"], rtol=0, atol=1e-13)
        made = joined @ output.weight.T + (0 if output.bias is None else output.bias)
        torch.testing.assert_close(made, own if batch_first else own.transpose(0, 1), rtol=0, atol=1e-13)
    assert (output.bias is None) is not bias


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.MultiheadAttention(8, 2, add_bias_kv=True), "additional keys or values"),
        (nn.MultiheadAttention(8, 2, add_zero_attn=True), "additional keys or values"),
        (nn.MultiheadAttention(8, 2, kdim=4), "additional keys or values"),
        (nn.Linear(8, 8), "attention of type Linear"),
    ],
)
def test_other_attention_is_refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        multihead_attention(module, None, {}, refuse)


def test_norms() -> None:
    layer: Any = nn.LayerNorm(6, eps=0.3)
    randomize(layer)
    (norm,) = norm_maps(layer, refuse)
    x: Tensor = torch.randn(4, 6)
    torch.testing.assert_close(norm(x), layer(x))
    assert norm_maps(nn.Identity(), refuse) == ()
    with pytest.raises(Refused, match="BatchNorm1d"):
        norm_maps(nn.BatchNorm1d(6), refuse)
