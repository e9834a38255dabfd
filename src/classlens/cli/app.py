"""The app: its commands, their errors and exit codes, and help texts filled from registries."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, ItemsView, ValuesView
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, ParamSpec

import typer
from typer.core import TyperGroup

from classlens.core.home import expanded
from classlens.errors import ClasslensError
from classlens.extras import require_extras_of
from classlens.text import say

# Placeholders of help texts and the registries that fill them when the help is shown.
_REGISTRIES = {
    "methods": "classlens.explain.registry:METHODS",
    "metrics": "classlens.tasks.evaluation.registry:METRICS",
    "layouts": "classlens.data.registry:LAYOUTS",
    "conditions": "classlens.tasks.tokens.conditions.registry:CONDITIONS",
    "experiments": "classlens.analysis.registry:EXPERIMENTS",
    "edits": "classlens.forward.edits.registry:EDITS",
    "libraries": "classlens.models.registry:ADAPTERS",
}


def _fill(text: str) -> str:
    """A help text with the names of a registry in the place of a placeholder such as ``{methods}``."""
    for key, row in _REGISTRIES.items():
        if f"{{{key}}}" in text:
            module, _, attribute = row.partition(":")
            text = text.replace(f"{{{key}}}", ", ".join(getattr(import_module(module), attribute)))
    return text


# In the order in which `--help` shows them. The module of a command, of the same name, is imported when it is used.
_NAMES = (
    "inspect",
    "explain",
    "sweep",
    "check",
    "models",
    "memories",
    "measure",
    "evaluate",
    "ablate",
    "probe",
    "tune",
    "means",
    "analyze",
    "atlas",
    "compare",
    "explore",
    "check-store",
    "figures",
    "reliability",
    "paper",
)


class _Modules(dict[str, Any]):
    """Commands by name, each from its module."""

    def __getitem__(self, name: str) -> Any:
        if super().__getitem__(name) is None:
            function = name.replace("-", "_")
            import_module(f"classlens.cli.{function}")
            alone = typer.Typer(add_completion=False)
            alone.registered_commands = [
                info for info in app.registered_commands if getattr(info.callback, "__name__", "") == function
            ]
            self[name] = typer.main.get_command(alone)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401

    def items(self) -> Any:
        return ItemsView(self)

    def values(self) -> Any:
        return ValuesView(self)


class _Commands(TyperGroup):
    """Commands whose help texts name what the registries hold."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": _Modules.fromkeys(_NAMES)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        for parameter in [] if command is None else command.params:
            parameter.help = _fill(getattr(parameter, "help", None) or "")  # type: ignore[attr-defined]
        if command is not None:
            command.help = _fill(command.help or "")
        return command


app = typer.Typer(
    cls=_Commands,
    help="How a Vision Transformer image classifier builds its classes.",
    no_args_is_help=True,
    add_completion=False,
)
_P = ParamSpec("_P")


def reporting(command: Callable[_P, None]) -> Callable[_P, None]:
    """Print one line and exit with 2 for an unusable input or a missing extra, with 130 for an interrupt."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            require_extras_of(command.__name__.replace("_", "-"))
            command(*map(expanded, args), **expanded(kwargs))
        except ClasslensError as error:
            say(f"Error: {error}", style="red", stderr=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("Interrupted; nothing half-written is left.", stderr=True)
            raise typer.Exit(130) from None

    return run


class _Notes(logging.Handler):
    """The log of the library, on stderr; above a bar that is shown there."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), stderr=True)


_notes = _Notes()


def _version(wanted: bool) -> bool:
    if wanted:
        from classlens import __version__

        print(f"classlens {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How a Vision Transformer image classifier builds its classes."""
    logging.getLogger("classlens").setLevel(logging.INFO)
    logging.getLogger("classlens").addHandler(_notes)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name or a rule of a table that it cannot show is no failure


def listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
