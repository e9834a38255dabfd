"""Extension points: named records, one row each, imported when they are first used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

from classlens.errors import ClasslensError, unknown

Record = TypeVar("Record")


class Registry(Mapping[str, Record], Generic[Record]):
    """Records by name, in the order in which they are shown.

        METHODS: Registry[Method] = Registry("method", {"chefer": "classlens.explain.chefer:CHEFER"})
        METHODS["chefer"]                 # imports the module, returns its METHOD
        METHODS.select("all")             # ("chefer",)

    A row is a record or its place: ``module:attribute``, or ``module`` where the module itself is the record. Names are
    known without an import, so help texts and error messages stay cheap.

    Args:
        kind: what a record is called in messages, such as ``"method"``.
        rows: the records, or their places, by name.
    """

    def __init__(self, kind: str, rows: Mapping[str, str | Record]) -> None:
        self.kind = kind
        self._rows: dict[str, str | Record] = dict(rows)

    def __getitem__(self, name: str) -> Record:
        """The record of a name; raises ClasslensError for an unknown name."""
        if name not in self:
            raise unknown(self.kind, name, self)
        row = self._rows[name]
        if not isinstance(row, str):
            return row
        module, _, attribute = row.partition(":")
        loaded = import_module(module)
        record: Record = getattr(loaded, attribute) if attribute else loaded  # type: ignore[assignment]
        self._rows[name] = record
        return record

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, names: str | Collection[str]) -> tuple[str, ...]:
        """Chosen names in the order of the registry; ``"all"`` chooses every record.

        Raises ClasslensError for an unknown name, and where no name is given.
        """
        if isinstance(names, str):
            names = tuple(self) if names == "all" else (names,)
        for name in names:
            if name not in self:
                raise unknown(self.kind, name, self, give="some of")
        if not names:
            raise ClasslensError(f"no {self.kind}s were given: give some of {', '.join(self)}, or all")
        return tuple(name for name in self if name in names)

    def register(self, name: str, row: str | Record) -> None:
        """Add a record after the others, or replace the one of this name."""
        self._rows[name] = row

    def unregister(self, name: str) -> None:
        """Remove the record of a name."""
        del self._rows[name]
