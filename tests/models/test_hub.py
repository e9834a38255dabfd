"""A hub that is not there is asked once."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from huggingface_hub import constants

import classlens
from classlens.models.hub import asked_once
from tests.refusals import refused


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hosts that are contacted, of which none is there."""
    made: list[Any] = []

    def connect(address: Any, *_: Any, **__: Any) -> Any:
        made.append(address)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", connect)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "hf-hub:somebody/vit"])
def test_one_attempt_and_one_sentence(name: str, attempts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: classlens.load(name), "could not be fetched (https://huggingface.co cannot be reached: Name or")
    assert attempts == [("huggingface.co", 443)]
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("attempts")
def test_transformers_asks_once() -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    refused(lambda: classlens.load("google/vit-base-patch16-224"), "https://huggingface.co cannot be reached: Name or")


def test_a_proxy_is_left_to_the_client(attempts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    with asked_once() as why:
        assert constants.HF_HUB_OFFLINE is False
    assert why(ValueError("that. More")) == "that"
    assert not attempts
