"""Tiny tensors: one thread."""

from tests.zoo import one_thread

__all__ = ["one_thread"]
