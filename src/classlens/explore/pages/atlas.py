"""Pages of classes, blocks, heads and hidden units of a store, with crops of its photos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.analysis.atlas.atlas import Atlas
from classlens.errors import ClasslensError
from classlens.explore import answers, openapi
from classlens.explore.byte_cache import ByteCache
from classlens.explore.explorer import Explored, Explorer, NotFound
from classlens.explore.message import PATIENCE, waiting_page
from classlens.explore.page import Choice, Page
from classlens.explore.site import site_element
from classlens.render.atlas_crops import Crops, cut_crops
from classlens.render.atlas_record import PageRecord, PageRecords, choose_pages
from classlens.render.atlas_record.tokens import token_place
from classlens.render.html.atlas import atlas_facts, atlas_page

_CACHE_BYTES = 64 * 2**20
"""Texts of pages: a page of a head opens up to nine photos, and cuts and writes their crops."""


class StoreAtlas(NamedTuple):
    """The atlas of a store, and its pages."""

    store: Explored
    atlas: Atlas
    records: PageRecords

    def record(self, path: str) -> PageRecord:
        """The page at an address; also that of a unit that no class page names."""
        if path in self.records:
            return self.records[path]
        unit = re.fullmatch(r"units/(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,8})\.html", path)
        if unit is None:
            raise NotFound(f"the atlas of {self.store.title!r} has no page {path!r}: choose one on its first page")
        block, number = int(unit[1]), int(unit[2])
        try:
            return PageRecords(self.atlas, choose_pages(self.atlas.tables, units=[(block, number)]))[path]
        except ClasslensError as error:
            raise NotFound(str(error)) from None


def open_atlas(store: Explored, classes: Sequence[int] | None = None) -> StoreAtlas:
    """The atlas of a store, with pages of chosen classes."""
    tables = store.atlas
    return StoreAtlas(store, tables, PageRecords(tables, choose_pages(tables.tables, classes=classes)))


def atlas_text(explorer: Explorer, opened: StoreAtlas, path: str, images: Sequence[int] | None = None) -> str:
    """The text of a page; ``images`` are those that have pages of their own, None for all."""
    record, store = opened.record(path), opened.store
    crops = _crops(opened, record)
    photos = {"root": f"{'../' * path.count('/')}../photos/", "images": None if images is None else list(images)}
    shown = photos if store.opens else None
    facts = {**atlas_facts(opened.atlas, crops=crops is not None), "photos": shown}
    return atlas_page(
        record,
        facts,
        crops,
        explorer.version,
        before=("classlens.render.html.explore",),
        data=[site_element(explorer, f"s{store.number}/atlas/{path}", store=store)],
        site=True,
    )


def _crops(opened: StoreAtlas, record: PageRecord) -> Crops | None:
    if opened.store.dataset is None:
        return None
    places = {token_place(row): row["image"] for row in record.record.get("tokens", ())}
    atlas = opened.atlas
    return cut_crops(opened.store.dataset, places, atlas.frames, atlas.grid, content=opened.store.content)


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    texts = ByteCache(_CACHE_BYTES)

    async def show(request: Request) -> Response:
        store = explorer.store(request.path_params["store"])
        path = request.path_params["path"]
        job = explorer.jobs.submit(("atlas", store.number), "reading the store", lambda: open_atlas(store))
        if not await job.wait(PATIENCE):
            address = f"s{store.number}/atlas/{path}"
            return answers.page(waiting_page(explorer, address, job, store, "Classes and heads"), 202)
        text = texts.get((store.number, path))
        if text is None:
            shown = await run_in_threadpool(atlas_text, explorer, job.result, path)
            text = shown.encode(errors="xmlcharrefreplace")
            texts.put((store.number, path), text)
        return answers.page(text.decode())

    return [Route("/s{store:int}/atlas/{path:path}", show)]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    for number, images in choice.images.items():
        store = explorer.store(number)
        if store.has_atlas:
            opened = open_atlas(store, None if choice.classes is None else choice.classes[number])
            for path in opened.records:
                yield f"s{number}/atlas/{path}", atlas_text(explorer, opened, path, images)


def _paths() -> dict[str, Any]:
    store, number = openapi.whole_number("store"), openapi.text("number", where="path")
    pages = {"index": (), "classes/{number}": (number,), "blocks/{number}": (number,)}
    pages |= {"heads/{number}": (number,), "units/{number}": (number,)}
    return {
        f"/s{{store}}/atlas/{page}.html": openapi.get("A page of the atlas.", store, *parameters, content="text/html")
        for page, parameters in pages.items()
    }


PAGE = Page(_routes, _paths(), _export)
