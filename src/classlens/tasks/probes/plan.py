"""Which probes are trained, and how many of them in one pass over the images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from classlens.engine.ram import told
from classlens.errors import ClasslensError, suggestion
from classlens.lens.facts import site_blocks
from classlens.models.view import ModelView, Tokens
from classlens.store import schema as variables
from classlens.store.probe_folder import Place

Which = Literal["all", "prefix", "image", "cls"]
_SITES = ("embed", *variables.SITES)
# Images whose features are put together before they are added, at most.
_BUFFER = 256


@dataclass(frozen=True)
class Plan:
    """The places of each pass, and of how many images their features are held."""

    passes: tuple[tuple[Place, ...], ...]
    buffer: int


def probe_sites(sites: str | Collection[str], view: ModelView) -> tuple[str, ...]:
    """Sites that probes can read, in their order; raises ClasslensError for others."""
    given = [sites] if isinstance(sites, str) else list(sites)
    known = [site for site in _SITES if site != "resid_mid" or view.has_mid]
    for site in given:
        if site not in known:
            raise ClasslensError(
                f"site {site!r} cannot be probed in model {view.name!r}{suggestion(str(site), known)}; give some of "
                f"{', '.join(known)}"
            )
    if not given:
        raise ClasslensError(f"no sites were given: give some of {', '.join(known)}")
    return tuple(site for site in known if site in given)


def token_range(which: str, view: ModelView, tokens: Tokens) -> range:
    """The places in the sequence of the tokens that get a probe; raises ClasslensError where there are none."""
    prefix = len(tokens.prefix)
    known = {"all": range(tokens.count), "prefix": range(prefix), "image": range(prefix, tokens.count)}
    if "cls" in tokens.prefix:
        place = tokens.prefix.index("cls")
        known["cls"] = range(place, place + 1)
    if which not in known or not known[which]:
        names = ", ".join(name for name, found in known.items() if found)
        raise ClasslensError(f"model {view.name!r} has no tokens {which!r} to probe: give one of {names}")
    return known[which]


def places_of(view: ModelView, sites: Sequence[str], tokens: range) -> list[Place]:
    """Every site and block with its tokens, in the order in which they pass."""
    return [
        Place(site, int(block), tokens.start, tokens.stop)
        for block in range(len(view.blocks))
        for site in sites
        if block in site_blocks(view, site)
    ]


def left_of(places: Iterable[Place], done: Collection[Place]) -> list[Place]:
    """What is not trained yet: places less the tokens that are."""
    found = []
    for place in places:
        start = place.start
        own = sorted(one for one in done if (one.site, one.block) == (place.site, place.block))
        for one in own:
            if one.start > start:
                found.append(place._replace(start=start, stop=one.start))
            start = max(start, one.stop)
        if start < place.stop:
            found.append(place._replace(start=start))
    return found


def plan(
    places: Sequence[Place], memory: int, *, each: int, features: int, least: int, pooled: bool, images: int
) -> Plan:
    """Share places out to as few passes as the memory allows: ``⌈need / memory⌉``, and more where no room is left for
    the features of ``least`` images.

    ``each`` is the memory of one probe while it is trained, ``features`` that of the features of one image at its
    tokens. Raises ClasslensError where not even one probe fits.
    """
    units = sum(_units(place, pooled) for place in places)
    wanted = min(least, images)
    passes = max(1, -(-units * each // memory))
    while passes <= units:
        share = -(-units // passes)
        room = (memory - share * each) // (share * features)
        if room >= wanted:
            return Plan(_split(places, share, pooled), min(_BUFFER, room))
        passes += 1
    raise ClasslensError(
        f"memory of {told(memory)} is too little: one probe and the features of {wanted} images take "
        f"{told(each + wanted * features)}; give --memory at least that"
    )


def _units(place: Place, pooled: bool) -> int:
    return 1 if pooled else place.stop - place.start


def _split(places: Sequence[Place], share: int, pooled: bool) -> tuple[tuple[Place, ...], ...]:
    """Passes of ``share`` probes each; the tokens of a site and block may fall into two."""
    found: list[list[Place]] = [[]]
    room = share
    for place in places:
        rest: Place | None = place
        while rest is not None:
            if room == 0:
                found.append([])
                room = share
            count = min(room, _units(rest, pooled))
            stop = rest.stop if pooled else rest.start + count
            found[-1].append(rest._replace(stop=stop))
            room -= count
            rest = None if stop == rest.stop else rest._replace(start=stop)
    return tuple(tuple(one) for one in found if one)
