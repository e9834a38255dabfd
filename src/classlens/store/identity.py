"""Images and classes of a run beside those that a store was measured with: what differs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.store.store import Store


@dataclass(frozen=True, eq=False)
class Identity:
    """Images and classes of a run.

    Args:
        names: name of each image, as in the coordinate ``image``.
        labels: the model's class of each image; -1 for an image without a label.
        class_names: name of each class of the model.
    """

    names: Sequence[str]
    labels: Array
    class_names: Sequence[str]

    def example(self, store: Store, key: str) -> str | None:
        """A difference in ``image_names``, ``labels`` or ``class_names``; None where the store does not tell."""
        find = {"image_names": self._image, "labels": self._label, "class_names": self._class}.get(key)
        with suppress(ClasslensError):  # a damaged coordinate, which a run with the same settings writes anew
            return next(filter(None, (find(store, group) for group in store.groups())), None) if find else None
        return None

    def _image(self, store: Store, group: str) -> str | None:
        before = store.texts(group, "image") or []
        gone, new = set(before) - set(self.names), set(self.names) - set(before)
        if not gone or not new:
            return None
        return f"{min(gone)!r} is gone, and {min(new)!r} is new"

    def _class(self, store: Store, group: str) -> str | None:
        pairs = zip(store.texts(group, "class_name") or (), self.class_names, strict=False)
        changed = [f"class {index} was {a!r}, and is {b!r}" for index, (a, b) in enumerate(pairs) if a != b]
        return changed[0] if changed else None

    def _label(self, store: Store, group: str) -> str | None:
        before = store.finished_values(group, "label")
        now: Mapping[str, int] = dict(zip(self.names, self.labels.tolist(), strict=True))
        for name, label in before.items():
            if name in now and now[name] != label:
                return f"{name!r} was {self._shown(label)}, and is {self._shown(now[name])}"
        return None

    def _shown(self, label: int) -> str:
        return "without a label" if label < 0 else repr(self.class_names[label])
