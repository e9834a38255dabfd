"""Every test: no network, one thread, a fixed seed, checked annotations, no global switch of a library left flipped."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

# Before any library reads them: nothing is fetched from a hub, drawing needs no display.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"
# Nearly all models here are small: handing work to a second thread costs more than the work, and pytest-xdist keeps the
# other cores busy. Processes that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import jaxtyping
import numpy as np
import pytest
import timm.layers.config
import torch
from filelock import FileLock
from hypothesis import settings

from tests import checked_annotations

if not jaxtyping.config.jaxtyping_disable:  # JAXTYPING_DISABLE=1
    checked_annotations.install()

torch.set_num_threads(1)

# A slow machine is no failure, and the same examples come on every run.
settings.register_profile("classlens", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("classlens")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers for this test only."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _wrong_types_pass(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test marked `wrong_types` reach the error messages behind the annotations."""
    if request.node.get_closest_marker("wrong_types") is not None:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Ray with two CPUs on this machine; one at a time, however many processes run tests."""
    ray = pytest.importorskip("ray")
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"):
        environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def _switches_unchanged() -> Iterator[None]:
    """Fails a test that leaves a global switch of torch or timm flipped, and flips it back for the next one."""
    before = _switches()
    yield
    after = _switches()
    if after != before:
        timm.layers.config._USE_FUSED_ATTN = before["timm fused attention"]
        torch.backends.mha.set_fastpath_enabled(before["torch attention fast path"])
        torch.set_grad_enabled(before["gradients"])
        torch.set_default_dtype(before["default dtype"])
        torch.set_num_threads(before["threads"])
    assert after == before, "the test left a global switch flipped"


def _switches() -> dict[str, Any]:
    return {
        "timm fused attention": timm.layers.config._USE_FUSED_ATTN,
        "torch attention fast path": torch.backends.mha.get_fastpath_enabled(),
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that contacts another machine, even where a library catches the refusal and continues."""
    attempts: list[str] = []

    def refuse_others(host: Any, family: int | None = None) -> None:
        if family == getattr(socket, "AF_UNIX", None) or _is_local(host):
            return
        attempts.append(str(host))
        raise ConnectionRefusedError(f"tests do not use the network, but this one contacts {host!r}")

    def guarded(name: str) -> None:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            refuse_others(address[0] if isinstance(address, tuple) else address, self.family)
            return original(self, address)

        monkeypatch.setattr(socket.socket, name, connect)

    guarded("connect")
    guarded("connect_ex")
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_others(host)
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    if attempts:
        pytest.fail(f"the test contacted the network: {', '.join(attempts)}")


def _is_local(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
