"""`classlens check-store`: files of a store that are missing, cut off or changed."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, reporting

_SHOWN = 20
"""Files that are listed of each array."""


@app.command()
@reporting
def check_store(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store of `measure`, `evaluate` or `probe`.")],
) -> None:
    """Read every file of a store, and list those that are missing, cut off or changed.

    The command that wrote the store measures their images anew when it is run again. The exit code is 0 for a store
    without damage, 1 for one with, and 2 for what is no store.
    """
    from classlens.store.damage import find_damage, remedy

    all_damage = find_damage(store)
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for (group, array), files in groupby(all_damage, key=lambda damage: (damage.group, damage.array)):
        damages = list(files)
        console.print(f"{group}/{array}: {len(damages)} damaged files" if array else f"{group}:", markup=False)
        for damage in damages[:_SHOWN]:
            console.print(f"  {damage.file}: {remedy(damage)}", markup=False)
        if len(damages) > _SHOWN:
            console.print(f"  and {len(damages) - _SHOWN} more")
    if all_damage:
        raise typer.Exit(1)
    console.print(f"{store}: no damage", markup=False)
