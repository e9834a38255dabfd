"""The parts of a class logit: heads, MLPs and their units, as labeled arrays."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from classlens.core.arguments import AtLeast1, checked, whole_number
from classlens.core.memories import best_classes
from classlens.explain.attribution import attribute, logit_weights
from classlens.explain.strongest_units import strongest_units
from classlens.forward.agreement import Sublayer
from classlens.forward.isolation import isolated_methods
from classlens.lens.coords import Coordinates, array, image_names, state_coords, target_coords
from classlens.lens.facts import site_blocks
from classlens.lens.target import Target
from classlens.lens.trajectory import TrajectoryTrace

_PARTS = ("image", "block", "head", "token")
_UNITS = ("image", "rank")


@isolated_methods
@checked
class AttributionTrace(TrajectoryTrace):
    """A recorded pass whose logits are split into what each part of the model adds to them."""

    def attribution(self, target: Target = "predicted", against: Target | None = None) -> xr.Dataset:
        """A class logit, or the difference of two, as the exact sum of what each part of the model adds (law 3).

        ``embed + attention.sum() + mlp.sum() + bias + edit.sum() = logit`` for every image, with the scale of every
        norm held at its value. ``edit`` is 0 unless the images ran with edits of attention's output.

        Args:
            target: class of interest, see ``Trace``.
            against: a second class, given like ``target``; all values, the bias and ``logit`` too, are then those of
                the difference of the two logits, ``z_target - z_against``.

        Returns:
            In logits: ``embed`` (``image``), the pooled tokens before the first block; ``attention`` (``image, block,
            head``) and ``attention_token`` (``image, block, head, token``), the same by the token attended to, without
            what an edit put in the place of a head's output; ``mlp`` (``image, block``), without its output bias;
            ``bias`` (``image``) of every output projection, norm and the head; ``edit`` (``image, block``), what an
            edit put in the place of attention's output; ``logit`` (``image``), the model's own.

        Raises:
            ClasslensError: an unknown class, or a head that pools by attention.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(1, 3, 32, 32))
            >>> parts = trace.attribution("cat")
            >>> total = parts.embed + parts.attention.sum() + parts.mlp.sum() + parts.bias
            >>> bool(abs(total - parts.logit) < 1e-4)
            True
            >>> difference = trace.attribution("cat", against="dog").mlp
            >>> bool(abs(difference - (parts.mlp - trace.attribution("dog").mlp)).max() < 1e-4)
            True
        """
        recording, (index, rival) = self.recording, self._contest(target, against)
        parts = attribute(recording, logit_weights(recording, index, rival))
        coords = state_coords(recording.view, recording.tokens, self.names, site_blocks(recording.view, "attn_out"))
        coords |= {"head": np.arange(parts.attention.shape[2])} | self._contest_coords(index, rival)
        values = {
            "embed": parts.embed,
            "attention": parts.attention.sum(dim=-1) + parts.replaced,
            "mlp": parts.mlp,
            "bias": parts.bias,
            "edit": parts.edit,
            "logit": self._logit(index, rival),
            "attention_token": parts.attention,
        }
        return xr.Dataset({name: array(part, _PARTS[: part.ndim], coords, name=name) for name, part in values.items()})

    def units(
        self,
        target: Target = "predicted",
        *,
        sublayer: Sublayer = "mlp",
        block: int | None = None,
        top: AtLeast1 = 20,
        against: Target | None = None,
    ) -> xr.Dataset:
        """The hidden units of MLPs, or channels of attention, that contribute most to a class logit.

        Contributions are exact, with the scale of every norm held at its value: the memory coefficient times what the
        unit's value vector adds to the logit. The images pass the model once more, to show the coefficients. Source:
        Geva et al., *Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space*,
        EMNLP 2022, for class logits; ``attribution`` has the sums.

        Args:
            target: class of interest, see ``Trace``.
            sublayer: ``mlp``, whose units are the hidden units, or ``attn``, whose units are the channels of the joined
                heads.
            block: from 0; None for the units of all blocks together.
            top: number of units of each image, the largest absolute contributions; all of a model that has fewer.
            against: a second class, given like ``target``; contributions are then to ``z_target - z_against``.

        Returns:
            Dims ``image, rank``, the strongest first: ``unit_block`` and ``unit``, the number of the unit in its
            sublayer; ``contribution`` in logits; ``coefficient``, the mean over the tokens that the head pools, so that
            of a ``[CLS]`` model it is that of ``[CLS]``. Coordinates ``value_class`` and ``value_class_name``: the
            class that the unit's value vector scores highest, as in ``memory_classes``. Dims ``image, block``:
            ``sublayer_contribution``, all that the sublayer adds to the logit; of it, ``rest`` comes from units that
            are not listed, and ``bias`` from biases, and from what an edit put in the place of the sublayer's output.
            In a block with an inner norm, the contribution is that of the unit before the norm.

        Raises:
            ClasslensError: an unknown class, block or sublayer, a head that pools by attention, or a model that has
                other weights or edits than when the images were traced.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(1, 3, 32, 32))
            >>> units = trace.units("cat", block=5, top=3)
            >>> units.value_class_name.shape
            (1, 3)
            >>> parts = units.contribution.sum("rank") + units.rest.sum("block") + units.bias.sum("block")
            >>> bool(abs(parts - units.sublayer_contribution.sum("block")) < 1e-4)
            True
        """
        recording, (index, rival) = self.recording, self._contest(target, against)
        hint = f" of model {recording.view.name!r}"
        count = len(recording.view.blocks)
        blocks = list(range(count)) if block is None else [whole_number("block", block, 0, count - 1, hint=hint)]
        units = strongest_units(recording, logit_weights(recording, index, rival), sublayer, blocks, top)
        number = torch.tensor(blocks)[units.block]
        values = {"unit_block": number, "unit": units.unit}
        values |= {"contribution": units.contribution, "coefficient": units.coefficient}
        sums = {"rest": units.rest, "bias": units.bias, "sublayer_contribution": units.added}
        coords: Coordinates = {"image": image_names(self.names), "rank": np.arange(number.shape[1])}
        coords |= {"block": np.array(blocks)} | self._contest_coords(index, rival)
        best = self._value_classes(sublayer, number, units.unit)
        coords["value_class"] = (_UNITS, best)
        coords["value_class_name"] = (_UNITS, np.array(self.classes.names, dtype=object)[best])
        arrays = {name: array(value, _UNITS, coords, name=name) for name, value in values.items()}
        arrays |= {name: array(value, _PARTS[:2], coords, name=name) for name, value in sums.items()}
        return xr.Dataset(arrays, attrs={"model": recording.view.name, "sublayer": sublayer})

    def _value_classes(
        self, sublayer: Sublayer, block: Int[Tensor, "image rank"], unit: Int[Tensor, "image rank"]
    ) -> NDArray[np.int64]:
        """The class that the value vector of each unit scores highest."""
        view, result = self.recording.view, torch.zeros_like(unit)
        for number in block.unique().tolist():
            listed, inverse = unit[block == number].unique(return_inverse=True)
            output = getattr(view.blocks[number], sublayer)
            result[block == number] = best_classes(view.space.embedding, output, listed.to(view.device)).cpu()[inverse]
        return np.asarray(result.numpy())

    def _contest(
        self, target: Target, against: Target | None
    ) -> tuple[Int[Tensor, " image"], Int[Tensor, " image"] | None]:
        """Class index of each image, and that of its rival, if any."""
        return self._indices(target), None if against is None else self._indices(against, "against")

    def _contest_coords(self, index: Int[Tensor, " image"], rival: Int[Tensor, " image"] | None) -> Coordinates:
        coords = target_coords(self.classes, index.numpy())
        return coords if rival is None else coords | target_coords(self.classes, rival.numpy(), "against")

    def _logit(self, index: Int[Tensor, " image"], rival: Int[Tensor, " image"] | None) -> Float[Tensor, " image"]:
        """The model's own logit of the class of each image, or the difference of two."""
        logits = self.recording.logits.to(self.recording.dtype).cpu()
        own = logits.gather(1, index[:, None])[:, 0]
        return own if rival is None else own - logits.gather(1, rival[:, None])[:, 0]
