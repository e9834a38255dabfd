"""Plan of a training: which probes, in how many passes over the training images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from classlens.engine.ram import format_ram
from classlens.errors import ClasslensError, suggestion
from classlens.lens.facts import site_blocks
from classlens.models.view import ModelView, Tokens
from classlens.store.probe_folder import ProbeTokens
from classlens.tasks.tokens.schema import STORED_SITES

TokenChoice = Literal["all", "prefix", "image", "cls"]
_SITES = ("embed", *STORED_SITES)
# Maximum number of images whose features are buffered before they are added to the sums.
_BUFFER = 256


@dataclass(frozen=True)
class Plan:
    """Tokens whose probes are trained in each pass, and how many images' features are buffered."""

    passes: tuple[tuple[ProbeTokens, ...], ...]
    buffer: int


def choose_sites(sites: str | Collection[str], view: ModelView) -> tuple[str, ...]:
    """Sites with probes, in the order of the forward pass; raises ClasslensError for an unknown site."""
    names = [sites] if isinstance(sites, str) else list(sites)
    model_sites = [site for site in _SITES if site != "resid_mid" or view.has_mid]
    if names == ["all"]:
        return tuple(model_sites)
    for site in names:
        if site not in model_sites:
            raise ClasslensError(
                f"site {site!r} cannot be probed in model {view.name!r}{suggestion(str(site), model_sites)}; give some "
                f"of {', '.join(model_sites)}"
            )
    if not names:
        raise ClasslensError(f"no sites were given: give some of {', '.join(model_sites)}")
    return tuple(site for site in model_sites if site in names)


def token_range(choice: str, view: ModelView, tokens: Tokens) -> range:
    """Positions of the tokens with probes; raises ClasslensError where the model has none of this kind."""
    prefix = len(tokens.prefix)
    ranges = {"all": range(tokens.count), "prefix": range(prefix), "image": range(prefix, tokens.count)}
    if "cls" in tokens.prefix:
        position = tokens.prefix.index("cls")
        ranges["cls"] = range(position, position + 1)
    if not ranges.get(choice):
        names = ", ".join(name for name, positions in ranges.items() if positions)
        raise ClasslensError(f"model {view.name!r} has no tokens {choice!r} to probe: give one of {names}")
    return ranges[choice]


def all_probe_tokens(view: ModelView, sites: Sequence[str], positions: range) -> list[ProbeTokens]:
    """The tokens of every site and block, in the order of the forward pass."""
    return [
        ProbeTokens(site, int(block), positions.start, positions.stop)
        for block in range(len(view.blocks))
        for site in sites
        if block in site_blocks(view, site)
    ]


def remaining_tokens(wanted: Iterable[ProbeTokens], trained: Collection[ProbeTokens]) -> list[ProbeTokens]:
    """Tokens without trained probes."""
    remaining = []
    for tokens in wanted:
        start = tokens.start
        for done in sorted(done for done in trained if (done.site, done.block) == (tokens.site, tokens.block)):
            if done.start > start:
                remaining.append(tokens._replace(start=start, stop=done.start))
            start = max(start, done.stop)
        if start < tokens.stop:
            remaining.append(tokens._replace(start=start))
    return remaining


def make_plan(
    tokens: Sequence[ProbeTokens],
    ram: int,
    *,
    probe_bytes: int,
    feature_bytes: int,
    least_images: int,
    pooled: bool,
    images: int,
) -> Plan:
    """Share tokens out to as few passes as the RAM allows.

    ``⌈need / ram⌉`` passes, or more where no room is left to buffer the features of ``least_images`` images. Raises
    ClasslensError where not even one probe fits.

    Args:
        tokens: tokens with probes.
        ram: bytes for sums and features of one pass.
        probe_bytes: bytes of one probe during training.
        feature_bytes: bytes of the features of one image for one probe.
        least_images: least number of images to buffer, such as a batch.
        pooled: whether all tokens of a site and block share one probe.
        images: number of training images.
    """
    probes = sum(_probes(wanted, pooled) for wanted in tokens)
    least = min(least_images, images)
    passes = max(1, -(-probes * probe_bytes // ram))
    while passes <= probes:
        share = -(-probes // passes)
        buffer = (ram - share * probe_bytes) // (share * feature_bytes)
        if buffer >= least:
            return Plan(_split(tokens, share, pooled), min(_BUFFER, buffer))
        passes += 1
    raise ClasslensError(
        f"ram of {format_ram(ram)} is too little: one probe and the features of {least} images take "
        f"{format_ram(probe_bytes + least * feature_bytes)}; give --ram at least that"
    )


def _probes(tokens: ProbeTokens, pooled: bool) -> int:
    return 1 if pooled else tokens.stop - tokens.start


def _split(tokens: Sequence[ProbeTokens], share: int, pooled: bool) -> tuple[tuple[ProbeTokens, ...], ...]:
    """Passes of ``share`` probes each; the tokens of a site and block may fall into two passes."""
    passes: list[list[ProbeTokens]] = [[]]
    room = share
    for wanted in tokens:
        rest: ProbeTokens | None = wanted
        while rest is not None:
            if room == 0:
                passes.append([])
                room = share
            count = min(room, _probes(rest, pooled))
            stop = rest.stop if pooled else rest.start + count
            passes[-1].append(rest._replace(stop=stop))
            room -= count
            rest = None if stop == rest.stop else rest._replace(start=stop)
    return tuple(tuple(group) for group in passes if group)
