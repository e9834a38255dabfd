"""The gallery of a store: its photos with filters, sorting and a selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.analysis.gallery import gallery_table
from classlens.explore import answers, openapi
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.message import PATIENCE, waiting_page
from classlens.explore.page import Choice, Page
from classlens.explore.site import site_element
from classlens.render.gallery_record import gallery_record
from classlens.render.html.explore.gallery import gallery_page


def gallery_text(explorer: Explorer, store: Explored, images: Sequence[int] | None = None) -> str:
    """The page of a store, with chosen images or all."""
    record = gallery_record(
        gallery_table(store.measured),
        store.measured.attrs,
        store=store.measured.url,
        dataset=store.dataset,
        total=store.measured.total_images,
        chosen=images,
        opens=store.opens,
        notes=store.notes,
    )
    site = site_element(explorer, f"s{store.number}/index.html", store=store)
    return gallery_page(record, site, version=explorer.version)


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    texts: dict[int, str] = {}
    """Pages that are done: the way back from a photo leads here, after however many jobs."""

    async def show(request: Request) -> Response:
        store = explorer.store(request.path_params["store"])
        if store.number not in texts:
            key = ("gallery", store.number)
            job = explorer.jobs.submit(key, "reading the store", lambda: gallery_text(explorer, store))
            if not await job.wait(PATIENCE):
                address = f"s{store.number}/index.html"
                return answers.page(waiting_page(explorer, address, job, store, "Photos"), 202)
            texts[store.number] = job.result
        return answers.page(texts[store.number])

    return [Route("/s{store:int}/index.html", show)]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    for number, images in choice.images.items():
        yield f"s{number}/index.html", gallery_text(explorer, explorer.store(number), images)


PAGE = Page(
    _routes,
    {"/s{store}/index.html": openapi.get("Photos of a store.", openapi.whole_number("store"), content="text/html")},
    _export,
)
