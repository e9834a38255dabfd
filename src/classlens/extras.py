"""Optional libraries: the extras of `pip install` that each command needs, and one sentence where one is missing."""

from __future__ import annotations

from importlib import import_module

from classlens.errors import ClasslensError, cause

_STORE = ("zarr", "numcodecs", "fsspec", "filelock")
_ANALYSIS = (*_STORE, "pandas", "scipy", "pyarrow")
LIBRARIES = {
    "store": _STORE,
    "analysis": _ANALYSIS,
    "probes": (*_STORE, "sklearn"),
    "explore": (*_ANALYSIS, "sklearn", "starlette", "uvicorn"),
}
"""Names by which the libraries of an extra are imported."""

COMMANDS = {
    "measure": "store",
    "probe": "store",
    "tune": "store",
    "means": "store",
    "check-store": "store",
    "evaluate": "analysis",
    "ablate": "analysis",
    "analyze": "analysis",
    "figures": "analysis",
    "atlas": "analysis",
    "compare": "analysis",
    "paper": "analysis",
    "reliability": "analysis,probes",
    "explore": "explore",
}
"""Extras of a command, and of the function of its name, between commas; the others need none."""


def require_extras(extras: str, user: str) -> None:
    """Raises ClasslensError where a library of the extras, which ``user`` needs, cannot be imported."""
    for name in dict.fromkeys(name for extra in extras.split(",") for name in LIBRARIES[extra]):
        try:
            import_module(name)
        except ImportError as error:
            raise ClasslensError(
                f"{user} needs {name}, which cannot be imported ({cause(error)}): pip install 'classlens[{extras}]'"
            ) from None


def require_extras_of(command: str) -> None:
    """Raises ClasslensError where a library that a command needs cannot be imported."""
    if command in COMMANDS:
        require_extras(COMMANDS[command], command)


def raise_missing_extra(user: str, error: ImportError) -> None:
    """Raises ClasslensError where the library that could not be imported is that of an extra."""
    for extra, libraries in LIBRARIES.items():
        if (error.name or "").partition(".")[0] in libraries:
            require_extras(extra, user)
