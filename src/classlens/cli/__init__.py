"""The command line: parse, call, print. One file a command."""

from classlens.cli.app import app

__all__ = ["app"]
