"""Edited passes of a photo, beside the pass as it is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.explore import answers, openapi
from classlens.explore.explorer import Explorer, NotFound
from classlens.explore.page import Page
from classlens.explore.pages.photo import Photo, photo_of
from classlens.lens.images import prepare_images
from classlens.lens.trace import Trace
from classlens.render.edit_record import EditPlan, edit_record, read_plan
from classlens.render.edit_record.code import Setting, as_command, as_python


class _Traces:
    """The pass without edits of the photo that was edited last; the worker thread alone uses it."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._trace: Trace | None = None

    def of(self, photo: Photo) -> Trace:
        if self._trace is None or self._key != photo.key:
            self._trace, self._key = photo.trace(), photo.key
        return self._trace


def edited_pass(explorer: Explorer, photo: Photo, original: Trace, plan: EditPlan) -> dict[str, Any]:
    """The record of a plan, and the code that computes it: lines of Python, and a command."""
    lens = photo.lens
    source = None if plan.source is None else _source(explorer, photo, plan.source)
    pixels = None if source is None else prepare_images([source[1]], lens.view, lens.preprocessing)[1]
    record = edit_record(lens, original, plan, source=pixels, means=explorer.means)
    setting = Setting(
        explorer.model or lens.view.name,
        photo.name if photo.store is None else photo.store.file(photo.key[1]),
        explorer.load_options,
        source=None if source is None else source[0],
        means=explorer.means_file,
    )
    target, tokens = record["target"]["index"], original.recording.tokens.count
    return {
        "key": plan.key,
        "record": record,
        "python": as_python(plan, setting, target=target, tokens=tokens, classes=lens.classes).splitlines(),
        "command": as_command(plan, setting, target=target, classes=lens.classes),
    }


def _source(explorer: Explorer, photo: Photo, source: int | str) -> tuple[str, Image.Image]:
    """File and picture of the photo that patches come from: of the store of the page, or a dropped one."""
    if isinstance(source, str):
        upload = explorer.uploads.get(source)
        if upload is None:
            raise NotFound(f"the dropped photo {source!r} is no longer kept: open it again")
        return upload.name, upload.picture()
    if not explorer.stores:
        raise NotFound(f"there is no photo {source}, since no store was given: open a photo as the source")
    store = photo.store or explorer.store(0)
    return store.file(source), store.picture(source)


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    traces = _Traces()

    async def edit(request: Request) -> Response:
        photo = photo_of(explorer, request)
        plan = read_plan(await answers.json_text(request))
        job = explorer.jobs.submit(
            ("edit", *photo.key, plan.key),
            f"running {photo.lens.view.name} with edits",
            lambda: edited_pass(explorer, photo, traces.of(photo), plan),
        )
        return answers.data(await job.answer(request.is_disconnected))

    return [
        Route("/api/s{store:int}/photos/{index:int}/edit", edit, methods=["POST"]),
        Route("/api/photos/{identifier:str}/edit", edit, methods=["POST"]),
    ]


def _paths() -> dict[str, Any]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "edits": {
                "type": "array",
                "items": {"type": "object", "required": ["edit"], "properties": {"edit": {"type": "string"}}},
            },
            "target": {"type": ["integer", "null"], "minimum": 0},
            "against": {"type": ["integer", "null"], "minimum": 0},
            "source": {"type": ["object", "null"]},
        },
    }
    store = openapi.whole_number("store"), openapi.whole_number("index")
    dropped = (openapi.text("identifier", where="path"),)
    return {
        f"/api/{path}/edit": openapi.post(
            "The pass of a photo with edits, beside the one without.", *parameters, schema=schema
        )
        for path, parameters in (("s{store}/photos/{index}", store), ("photos/{identifier}", dropped))
    }


PAGE = Page(_routes, _paths())
