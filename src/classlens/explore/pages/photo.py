"""The page of a photo: the report of `classlens inspect`, computed when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.errors import ClasslensError
from classlens.explore import answers, openapi
from classlens.explore.explorer import Explored, Explorer, NotFound
from classlens.explore.message import PATIENCE, message_page, waiting_page
from classlens.explore.page import Choice, Page
from classlens.explore.site import site_element
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.render.edit_record.forms import edit_forms
from classlens.render.html.page import json_element
from classlens.render.html.report import report_page
from classlens.render.inspection_record import inspection
from classlens.render.method_maps import method_maps
from classlens.text import visible

_SITE = "classlens.render.html.explore"
_AFTER = (f"{_SITE}.edits", f"{_SITE}.methods", f"{_SITE}.address")


class Photo(NamedTuple):
    """A photo of a store, or a dropped one, and the lens that reads it.

    ``path`` is the address of its page, ``api`` that of its data, ``key`` tells it from all others.
    """

    key: tuple[Any, ...]
    name: str
    path: str
    api: str
    lens: Lens
    store: Explored | None
    picture: Callable[[], Image.Image]

    def trace(self) -> Trace:
        trace = self.lens.trace([self.picture()])
        trace.names = [self.name]
        return trace


def stored_photo(explorer: Explorer, number: int, index: int) -> Photo:
    """A photo of a store; raises NotFound where there is none, and ClasslensError without the live model."""
    store = explorer.store(number)
    name = store.name(index)
    if store.lens is None:
        raise ClasslensError(store.without_lens)
    path = f"s{number}/photos/{index}"
    return Photo((number, index), name, f"{path}.html", f"api/{path}", store.lens, store, lambda: store.picture(index))


def dropped_photo(explorer: Explorer, identifier: str) -> Photo:
    """A dropped photo; raises NotFound for one that is no longer kept."""
    upload = explorer.uploads.get(identifier)
    if upload is None or explorer.lens is None:
        raise NotFound("this photo is no longer kept: open it again")
    path = f"photos/{identifier}"
    return Photo((identifier,), upload.name, f"{path}.html", f"api/{path}", explorer.lens, None, upload.picture)


def photo_of(explorer: Explorer, request: Request) -> Photo:
    """The photo that a request names."""
    values = request.path_params
    if "identifier" in values:
        return dropped_photo(explorer, values["identifier"])
    return stored_photo(explorer, values["store"], values["index"])


def class_of(lens: Lens, text: str | None) -> int | None:
    """A class of the query, by name or index."""
    return None if text in (None, "") else lens.classes.index(text)


def photo_page(
    explorer: Explorer, photo: Photo, target: int | None = None, against: int | None = None, *, alone: bool = False
) -> str:
    """The page of a photo for a class, the prediction by default; ``alone``: the report that opens without a server."""
    trace = photo.trace()
    # A reader waits for a page of the server; other pages are files.
    compression = 6 if alone or not explorer.live else 1
    wanted = "predicted" if target is None else target
    record = inspection(photo.lens, [trace], wanted, against, version=explorer.version, compression=compression)
    pictures = [trace.picture(0)]
    if alone:
        return report_page(record, pictures)
    facts = {
        "name": photo.name,
        "api": photo.api,
        "classes": list(photo.lens.classes.names),
    }
    data = [
        site_element(explorer, photo.path, store=photo.store),
        json_element("photo-record", visible(facts), subject="the photo"),
        json_element("edit-setting", visible(_edit_setting(explorer, photo)), subject="the edits"),
    ]
    return report_page(record, pictures, before=(_SITE,), after=_AFTER, data=data, site=True)


def _edit_setting(explorer: Explorer, photo: Photo) -> dict[str, Any]:
    """Changes of the pass that the page offers."""
    store = photo.store or (explorer.stores[0] if explorer.stores else None)
    has_photos = store is not None and store.dataset is not None
    return {
        "address": f"{photo.api}/edit" if explorer.live else None,
        "forms": edit_forms(photo.lens.view),
        "means": explorer.means is not None,
        "photos": len(store.names) if store is not None and has_photos else 0,
    }


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    def question(request: Request) -> tuple[Photo, int | None, int | None]:
        """The photo, the class of interest and the one that it is compared with."""
        photo = photo_of(explorer, request)
        target, against = (class_of(photo.lens, request.query_params.get(name)) for name in ("class", "against"))
        if target is not None and target == against:
            raise ClasslensError(f"class {target} is compared with itself: give another one")
        return photo, target, against

    async def show(request: Request) -> Response:
        photo, target, against = question(request)
        key = ("photo", *photo.key, target, against)
        job = explorer.jobs.submit(
            key, f"running {photo.lens.view.name}", lambda: photo_page(explorer, photo, target, against)
        )
        if await job.wait(PATIENCE):
            return answers.page(job.result)
        return answers.page(waiting_page(explorer, photo.path, job, photo.store, photo.name), 202)

    async def maps(request: Request) -> Response:
        photo, target, against = question(request)
        key = ("maps", *photo.key, target, against)
        job = explorer.jobs.submit(key, "computing maps", lambda: method_maps(photo.trace(), target, against))
        return answers.data(await job.answer(request.is_disconnected))

    async def save(request: Request) -> Response:
        photo, target, against = question(request)
        job = explorer.jobs.submit(
            ("report", *photo.key, target, against),
            "writing the report",
            lambda: photo_page(explorer, photo, target, against, alone=True),
        )
        answer = answers.page(await job.answer(request.is_disconnected))
        answer.headers["content-disposition"] = 'attachment; filename="report.html"'
        return answer

    stored, dropped = "s{store:int}/photos/{index:int}", "photos/{identifier:str}"
    return [
        Route(prefix + path + ending, handler)
        for path in (stored, dropped)
        for prefix, ending, handler in (("/", ".html", show), ("/api/", "/maps", maps), ("/api/", "/report.html", save))
    ]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    for number, indices in choice.images.items():
        store = explorer.store(number)
        for index in indices if store.opens else ():
            photo = stored_photo(explorer, number, index)
            try:
                text = photo_page(explorer, photo)
            except NotFound as error:  # a photo that has changed: links lead to the reason
                text = message_page(explorer, photo.path, str(error))
            yield photo.path, text


def _paths() -> dict[str, Any]:
    query = openapi.text("class"), openapi.text("against")
    photos = {
        "s{store}/photos/{index}": (openapi.whole_number("store"), openapi.whole_number("index")),
        "photos/{identifier}": (openapi.text("identifier", where="path"),),
    }
    paths: dict[str, Any] = {}
    for path, parameters in photos.items():
        paths[f"/{path}.html"] = openapi.get("The page of a photo.", *parameters, *query, content="text/html")
        paths[f"/api/{path}/maps"] = openapi.get("Maps of all methods.", *parameters, *query)
        paths[f"/api/{path}/report.html"] = openapi.get(
            "The report as one file.", *parameters, *query, content="text/html"
        )
    return paths


PAGE = Page(_routes, _paths(), _export)
