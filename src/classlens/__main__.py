"""``python -m classlens``: the command line without its script."""

from __future__ import annotations

from classlens.cli import app

if __name__ == "__main__":
    app(prog_name="classlens")
