"""The decision trajectory of recorded images: the model's class scores over depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import AtLeast1, checked
from classlens.core.depth_facts import DepthFacts, depth_facts, group_logits, logit_of
from classlens.core.trajectories import margin, two_class_measures
from classlens.errors import ClasslensError
from classlens.explain.class_logits import logit_groups
from classlens.forward.depth_logits import DepthLogits
from classlens.forward.isolation import isolated_methods
from classlens.forward.recording import Recording
from classlens.lens.coords import Coordinates, array, image_names, target_coords
from classlens.lens.raw import RawTrace
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.lens.tuned_lens import TunedLens
from classlens.models.classes import Classes
from classlens.models.label_groups import Groups, LabelGroups
from classlens.renderers import Shown

_DIMS = ("image", "depth", "place")


class Trajectory(Shown, xr.Dataset):  # type: ignore[no-untyped-call]
    """An ``xarray.Dataset`` of ``Trace.trajectory``, which a notebook shows with a chart above its tables.

    It has the methods of a Dataset and adds none. Selections by ``sel`` and ``isel`` are shown with a chart as well;
    values that are those of a decision no longer, such as means over images, without one.

    Examples:
        >>> import classlens, torch
        >>> trajectory = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32)).trajectory()
        >>> dict(trajectory.isel(image=[1])["rank"].sizes)
        {'image': 1, 'depth': 7}
    """

    __slots__ = ()
    _renderer: ClassVar[str] = "trajectory"


@isolated_methods
@checked
class TrajectoryTrace(RawTrace):
    """A recorded pass whose tokens are read after every block as the model reads them at its end."""

    classes: Classes

    def trajectory(
        self,
        target: Target = "predicted",
        k: AtLeast1 = 5,
        *,
        decoder: TunedLens | None = None,
        groups: Groups | None = None,
        against: Target | None = None,
    ) -> Trajectory:
        """The decision of the model after each block, from the tokens that its head reads.

        Args:
            target: class of interest, see ``Trace``.
            k: number of top classes, at least 1; all of a model that has fewer.
            decoder: a tuned lens of the model, in place of that of the trace, if any.
            groups: groups of classes, in whose place all values are then of groups: a CSV or TSV file of lines
                ``class,group``, or a dict from classes to groups. Classes are given by name, wnid or index; those of no
                group are left out. The probability of a group is the mean of its classes, renormalized over groups, and
                the group of a class stands in its place.
            against: a second class, given like ``target``, with which it competes.

        Returns:
            A ``Trajectory``, which is a Dataset. Dims ``image, depth``: ``depth`` 0 are the embeddings, ``depth`` d
            follows ``block`` d - 1, and the last are the model's own logits. ``rank``, ``logit``, ``log_probability``
            and ``margin`` (to the largest other logit) of the class of interest, ``entropy`` in nats and ``logsumexp``;
            with ``place`` (the best is 0) also ``top``, class indices, ``top_logit``, and ``final_logit`` of the top
            classes of the last depth. An image whose predicted class has no group has rank -1 and NaN where values are
            of the class of interest.
            With ``against``, also ``difference``, ``ln p(target) - ln p(against)``, and for each image, over the
            outputs of its ``L`` blocks: ``area_for``, the sum of positive differences; ``area_against``, that of
            negative ones without their sign; ``change_of_mind``, how far ``against`` was ahead beyond the end; and
            ``time_to_decision``, ``(t + 1) / L`` with ``t`` the first block from which on the difference is never
            negative, or the last block. Source: Hu, Lepori and Franke, 2025.

        Raises:
            ClasslensError: an unknown class, a tuned lens of another model, outputs that are no classes, groups that do
                not fit the classes, or given classes none of which has a group.

        Examples:
            >>> import classlens, torch
            >>> trace = classlens.load("builtin:cifar10").trace(torch.zeros(1, 3, 32, 32))
            >>> trace.trajectory(k=1).class_name.values[0, -3:, 0].tolist()
            ['bird', 'bird', 'airplane']
            >>> groups = {"bird": "animal", "cat": "animal", "airplane": "vehicle", "ship": "vehicle"}
            >>> trace.trajectory("cat", k=1, groups=groups).class_name.values[0, -3:, 0].tolist()
            ['animal', 'animal', 'vehicle']
            >>> trace.trajectory("cat", against="bird").difference.dims
            ('image', 'depth')
        """
        recording = self.recording
        recording.view.require_exclusive("a trajectory", "use trace.logits")
        recording.require_same_model()
        chosen = None if groups is None else LabelGroups.of(groups, self.classes)
        own = self._of_groups(target, chosen, "target")
        rival = None if against is None else self._of_groups(against, chosen, "against")
        shown = chosen or self.classes
        k = min(k, len(shown))
        facts, logits = _facts(recording, own, max(k, 2), decoder, chosen, rival)
        values = {name: value.cpu().numpy() for name, value in facts._asdict().items()}
        rival_margin = margin(values["top"], values["top_logit"], own.numpy(), values["logit"])
        values |= {name: values[name][..., :k] for name in ("top", "top_logit", "final_logit")}
        values |= {"log_probability": values["logit"] - values["logsumexp"], "margin": rival_margin}
        coords: Coordinates = {"image": image_names(self.names), **depth_coords(len(recording.view.blocks))}
        coords |= {"place": np.arange(k), **target_coords(shown, own.numpy())}
        if rival is not None:
            coords |= target_coords(shown, rival.numpy(), "against")
            values |= _contest(values["logit"] - logits.cpu().numpy())
        class_name = np.array(shown.names, dtype=object)[values["top"]]
        arrays = {name: array(value, _DIMS[: value.ndim], coords, name=name) for name, value in values.items()}
        return Trajectory(arrays).assign_coords(class_name=(_DIMS, class_name))

    def _of_groups(self, target: Target, groups: LabelGroups | None, name: str) -> Int[Tensor, " image"]:
        """The class of each image, or its group; raises ClasslensError for given classes none of which has a group."""
        index = self._indices(target, name)
        if groups is None:
            return index
        found = groups.table[index]
        if not is_predicted(target) and bool((found < 0).all()) and len(index):
            raise ClasslensError(
                f"{name} {self.classes.names[int(index[0])]!r} is a class of no group: give one that has a group, or "
                "add it to the groups"
            )
        return found

    def _indices(self, target: Target, name: str = "target") -> Int[Tensor, " image"]:
        """Class index of each image, on the CPU."""
        if is_predicted(target):
            return self.recording.logits.argmax(dim=1).cpu()
        return class_indices(self.classes, target, len(self.names), name)


def depth_coords(blocks: int) -> Coordinates:
    """``depth``, the number of blocks passed, and ``block``, the last of them: -1 for the embeddings."""
    return {"depth": np.arange(blocks + 1), "block": ("depth", np.arange(-1, blocks))}


def _contest(difference: Float[np.ndarray, "image depth"]) -> dict[str, np.ndarray]:
    """The difference of two classes, and its measures over the outputs of blocks; NaN where there is no difference."""
    measures = two_class_measures(difference[:, 1:].astype(np.float64))._asdict()
    known = ~np.isnan(difference).any(axis=1)
    return {"difference": difference, **{name: np.where(known, value, np.nan) for name, value in measures.items()}}


def _facts(
    recording: Recording,
    target: Int[Tensor, " image"],
    k: int,
    decoder: TunedLens | None,
    groups: LabelGroups | None,
    rival: Int[Tensor, " image"] | None,
) -> tuple[DepthFacts, Float[Tensor, "image depth"]]:
    """The facts of classes or groups, and the logits of the rival, if any."""
    parts, logits_of_rival = [], []
    for images, logits in depth_logits(recording, decoder):
        scores = logits if groups is None else group_logits(logits, groups.table.to(logits.device))
        parts.append(depth_facts(scores, target[images].to(logits.device), k))
        logits_of_rival.append(logit_of(scores, (target if rival is None else rival)[images].to(logits.device)))
    return DepthFacts(*(torch.cat(values) for values in zip(*parts, strict=True))), torch.cat(logits_of_rival)


def depth_logits(
    recording: Recording, decoder: TunedLens | None = None
) -> Iterator[tuple[slice, Float[Tensor, "image depth category"]]]:
    """``(images, logits)`` at every depth, one group of images after another."""
    view = recording.view
    if decoder is not None:
        view = replace(view, tuned_lens=decoder.projections(view))
    for images in logit_groups(recording):
        depths = DepthLogits(view)
        kept = None if recording.kept is None else recording.kept[images]
        for block, states in recording.walk("resid_pre", images):
            depths.add(block, states, kept)
        yield images, depths.stack(recording.logits[images])
