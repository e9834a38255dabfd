"""The decoders of a run: a tuned lens and folders of probes, beside the class embedding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classlens.lens.lens import Lens
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.store.probe_folder import ProbeFolder
from classlens.tasks.tokens.conditions.registry import CONDITIONS


@dataclass(frozen=True, eq=False)
class Decoders:
    """Decoders of states beside the class embedding. They can be pickled."""

    tuned_lens: TunedLens | None = None
    probes: Path | None = None

    @classmethod
    def open(
        cls,
        tuned_lens: str | os.PathLike[str] | TunedLens | None,
        probes: str | os.PathLike[str] | None,
        lens: Lens,
    ) -> Decoders:
        """Read the tuned lens; raises ClasslensError for one of another model."""
        if tuned_lens is not None and not isinstance(tuned_lens, TunedLens):
            tuned_lens, _ = read_tuned_lens(tuned_lens, lens.view)
        if tuned_lens is not None:
            tuned_lens.projections(lens.view)
        return cls(tuned_lens, None if probes is None else Path(probes).absolute())

    @property
    def names(self) -> list[str]:
        """Names of the decoders at hand."""
        return [name for name, decoder in (("tuned_lens", self.tuned_lens), ("probes", self.probes)) if decoder]

    def probe_folder(self, condition: str) -> ProbeFolder | None:
        """The probes of a condition; None where it has another decoder."""
        if CONDITIONS[condition].decoder != "probes":
            return None
        assert self.probes is not None, "conditions are checked first"
        return ProbeFolder(self.probes / condition)

    def lens(self, condition: str, lens: Lens) -> Lens:
        """The model with the tuned lens, where the condition decodes by it."""
        if CONDITIONS[condition].decoder != "tuned_lens":
            return lens
        assert self.tuned_lens is not None, "conditions are checked first"
        return lens.with_tuned_lens(self.tuned_lens)

    def digest(self, condition: str) -> str:
        """SHA-256 of the decoder of a condition; empty for the class embedding."""
        if CONDITIONS[condition].decoder == "tuned_lens":
            assert self.tuned_lens is not None, "conditions are checked first"
            return self.tuned_lens.digest
        folder = self.probe_folder(condition)
        return "" if folder is None else folder.digest

    def check(self, conditions: Sequence[str], lens: Lens) -> None:
        """Raises ClasslensError for probes of another model, or an unfinished training."""
        for condition in conditions:
            folder = self.probe_folder(condition)
            if folder is not None:
                folder.check(lens.view)
