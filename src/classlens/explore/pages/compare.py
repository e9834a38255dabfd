"""Two stores of the same images, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.analysis.comparison.compare import comparison_of
from classlens.errors import ClasslensError
from classlens.explore import answers, openapi
from classlens.explore.explorer import Explored, Explorer, NotFound
from classlens.explore.message import PATIENCE, message_page, waiting_page
from classlens.explore.page import Choice, Page
from classlens.explore.site import site_element
from classlens.render.comparison_record import Record, comparison_record
from classlens.render.html.explore.compare import SideLinks, compare_page


def compared(explorer: Explorer, first: int, second: int) -> Record:
    """The record of two stores; raises ClasslensError where they have nothing in common."""
    return comparison_record(comparison_of(explorer.store(first).measured, explorer.store(second).measured))


def comparison_text(
    explorer: Explorer, record: Record, first: int, second: int, images: tuple[Sequence[int] | None, ...] = (None, None)
) -> str:
    """The page of a comparison; ``images``: positions in each store that have a page and a thumbnail, None for all."""
    links = [_links(explorer.store(number), chosen) for number, chosen in zip((first, second), images, strict=True)]
    element = site_element(explorer, f"compare/{first}-{second}.html")
    return compare_page(record, version=explorer.version, links=(links[0], links[1]), site=element)


def _links(store: Explored, images: Sequence[int] | None) -> SideLinks:
    return SideLinks(
        folder=f"../s{store.number}/",
        photos=images if store.opens else [],
        thumbs=[] if store.dataset is None else images,
        heads=store.has_atlas,
    )


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    async def show(request: Request) -> Response:
        first, second = (request.path_params[name] for name in ("first", "second"))
        if first == second:
            raise NotFound(f"store {first} is compared with itself: give another one")
        titles = [explorer.store(number).title for number in (first, second)]
        job = explorer.jobs.submit(
            ("compare", first, second), "comparing the stores", lambda: compared(explorer, first, second)
        )
        if not await job.wait(PATIENCE):
            address = f"compare/{first}-{second}.html"
            return answers.page(waiting_page(explorer, address, job, None, " and ".join(titles)), 202)
        return answers.page(await run_in_threadpool(comparison_text, explorer, job.result, first, second))

    return [Route("/compare/{first:int}-{second:int}.html", show)]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    numbers = sorted(choice.images)
    for first in numbers:
        for second in numbers:
            if first >= second:
                continue
            path = f"compare/{first}-{second}.html"
            try:
                record = compared(explorer, first, second)
            except ClasslensError as error:  # stores of other images: links lead to the reason
                yield path, message_page(explorer, path, str(error))
                continue
            images = choice.images[first], choice.images[second]
            yield path, comparison_text(explorer, record, first, second, images)


def _paths() -> dict[str, Any]:
    numbers = openapi.whole_number("first"), openapi.whole_number("second")
    page = openapi.get("Two stores side by side.", *numbers, content="text/html")
    return {"/compare/{first}-{second}.html": page}


PAGE = Page(_routes, _paths(), _export)
