"""``~`` at the start of a path: the home folder, also where no shell has put it there (``--out=~/maps``)."""

from __future__ import annotations

import os
import re
from typing import Any

# Also after a layout, a library or a model's name: folder:~/photos, local-dir:~/vit, paper:vit-b-32=~/weights.pt.
_START = re.compile(r"((?:[\w.-]+[:=])*)(~)(?=[/\\])")


def expanded(value: Any) -> Any:
    """A path, or texts and lists of them, with the home folder in the place of ``~/``; anything else as it is.

    Examples:
        >>> expanded(["folder:~/photos", 3, "cat~/"]) == ["folder:" + os.path.expanduser("~/photos"), 3, "cat~/"]
        True
    """
    if isinstance(value, str):
        return _START.sub(lambda match: match[1] + os.path.expanduser("~"), value, count=1) if _starts(value) else value
    if isinstance(value, os.PathLike):
        text = os.fspath(value)
        return type(value)(expanded(text)) if isinstance(text, str) and _starts(text) else value  # type: ignore[call-arg]
    if type(value) in (list, tuple):
        return type(value)(expanded(part) for part in value)
    if type(value) is dict:
        return {key: expanded(part) for key, part in value.items()}
    return value


def _starts(text: str) -> bool:
    return _START.match(text) is not None
