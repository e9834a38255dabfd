"""Images that choose and images that test; heads that one half says matter; classes that it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.tasks.ablation.references import HEAD, MLP, PartName

Parts = frozenset[PartName]


def choosing_half(labels: Int[ndarray, " image"], seed: int) -> Bool[ndarray, " image"]:
    """A random half of the images of each class, the larger one of an odd number; False without a label."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels[labels >= 0]):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen[members[: (len(members) + 1) // 2]] = True
    return chosen


def strongest_heads(scores: Float[ndarray, "image block head"], count: int) -> Parts:
    """The heads with the largest mean over images; the first ones among equals."""
    mean = scores.mean(axis=0)
    order = np.argsort(-mean, axis=None, kind="stable")[:count]
    return frozenset((HEAD, *map(int, np.unravel_index(index, mean.shape))) for index in order)  # type: ignore[misc]


def random_heads(blocks: int, heads: int, count: int, draws: int, seed: int) -> list[Parts]:
    """Sets of heads, each drawn from all heads."""
    return random_parts(frozenset((HEAD, 0, head) for head in range(count)), blocks, heads, draws, [seed, 1])


def random_parts(like: Parts, blocks: int, heads: int, draws: int, seed: Sequence[int]) -> list[Parts]:
    """Random sets with as many heads and as many MLPs as a given one."""
    rng, drawn = np.random.default_rng(seed), []
    mlps = sum(kind == MLP for kind, _, _ in like)
    every_mlp: list[PartName] = [(MLP, block, 0) for block in range(blocks)]
    every_head: list[PartName] = [(HEAD, block, head) for block in range(blocks) for head in range(heads)]
    for _ in range(draws):
        chosen = [every_mlp[index] for index in rng.permutation(blocks)[:mlps]] if mlps else []
        chosen += [every_head[index] for index in rng.permutation(len(every_head))[: len(like) - mlps]]
        drawn.append(frozenset(chosen))
    return drawn


class Pair(NamedTuple):
    """A label, and the class that is predicted in its place."""

    label: int
    rival: int


def confusion_pairs(
    labels: Int[ndarray, " image"], predicted: Int[ndarray, " image"], *, least: int, most: int
) -> list[Pair]:
    """The most frequent confusions, of at least ``least`` images; ties by class."""
    wrong = (labels >= 0) & (labels != predicted)
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [Pair(*map(int, pairs[index])) for index in order if counts[index] >= least][:most]


def contrasts(
    heads: Float[ndarray, "image block head"], mlps: Float[ndarray, "image block"]
) -> tuple[list[PartName], Float[ndarray, "image part"]]:
    """Names of all parts of a block, heads before the MLP, and their values as columns."""
    _, blocks, per_block = heads.shape
    names: list[PartName] = []
    for block in range(blocks):
        names += [(HEAD, block, head) for head in range(per_block)]
        names.append((MLP, block, 0))
    return names, np.concatenate([heads, mlps[:, :, None]], axis=2).reshape(len(heads), -1)


def most_tipping(names: Sequence[PartName], difference: Float[ndarray, " part"], count: int) -> Parts:
    """The parts with the largest difference above 0."""
    order = np.argsort(-difference, kind="stable")[:count]
    return frozenset(names[index] for index in order if difference[index] > 0)
