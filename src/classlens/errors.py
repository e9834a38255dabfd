"""The one error that classlens raises for an input it cannot use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClasslensError(ValueError):
    """One sentence that names the input, what was expected and the way out; the command line exits with 2 on it."""


def not_finite() -> ClasslensError:
    """For class logits among which a NaN or an infinity would be counted as a rank."""
    return ClasslensError(
        "class logits are not finite: expected finite weights and pixels; check the image and the checkpoint for NaN"
    )


def suggestion(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """The names closest to ``name`` as a hint such as ``"; did you mean 'cat' or 'car'?"``, empty if none is near."""
    lower = {str(option).lower(): str(option) for option in known}
    found = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=count, cutoff=0.5)]
    return f"; did you mean {' or '.join(repr(option) for option in found)}?" if found else ""


def unknown(kind: str, name: object, known: Iterable[str], *, give: str = "one of") -> ClasslensError:
    """The error for a name that is not among the known ones: ``unknown("loss", "logits", LOSSES)``."""
    names = list(known)
    return ClasslensError(f"{kind} {name!r} is not known{suggestion(str(name), names)}; give {give} {', '.join(names)}")


def cause(error: BaseException) -> str:
    """The message of another library's error, short and without a full stop, to stand within a sentence of ours."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
    return first[:200].rstrip(" .:")
