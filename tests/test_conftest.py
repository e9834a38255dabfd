"""The guards of conftest.py catch what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("socket.create_connection(('192.0.2.1', 80), timeout=1)", "192.0.2.1"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1"),
        (
            "swallow(socket.create_connection, ('example.invalid', 80))",
            "example.invalid",
        ),
        ("timm.layers.config._USE_FUSED_ATTN = 0", "timm fused attention"),
        ("torch.set_grad_enabled(False)", "gradients"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
    ],
)
def test_a_guard_catches(pytester: pytest.Pytester, body: str, message: str) -> None:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        f"""
        import contextlib, socket
        import timm.layers.config, torch

        def swallow(function, *args):
            with contextlib.suppress(OSError):
                function(*args)

        def test_offends():
            {body}

        def test_next_one_is_clean():
            assert timm.layers.config._USE_FUSED_ATTN == 1
            assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) >= 1, result.stdout.str()
    assert message in result.stdout.str()
    assert "test_next_one_is_clean" not in "\n".join(line for line in result.outlines if line.startswith("FAILED"))


def test_local_sockets_are_free(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import os, socket
        import pytest

        def test_loopback():
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(("localhost", server.getsockname()[1])).close()

        def test_unix(tmp_path):
            os.chdir(tmp_path)
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind("s")
                server.listen()
                client.connect("s")

        def test_offline():
            import huggingface_hub.constants
            assert huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"

        @pytest.mark.parametrize("turn", [1, 2])
        def test_seeded(turn, generator):
            import torch
            assert torch.equal(torch.rand(3), torch.rand(3, generator=generator))
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=5)
