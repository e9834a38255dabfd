"""The start page: the stores, and a place for a photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.explore import answers, openapi
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.page import Choice, Page
from classlens.explore.site import site_element
from classlens.render.html.page import assembled, json_element
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.text import visible


def start_page(explorer: Explorer, choice: Choice | None = None) -> str:
    """The page that lists the stores; ``choice`` is that of a static site."""
    lens = explorer.lens
    record = {
        "stores": [_card(explorer, store, choice) for store in explorer.stores],
        "model": None if lens is None else {"name": lens.view.name, "classes": len(lens.classes)},
    }
    return assembled(
        "classlens.render.html.explore",
        "classlens.render.html.explore.start",
        title="classlens",
        version=explorer.version,
        data="\n".join(
            [
                site_element(explorer, "index.html"),
                json_element("start-record", visible(record), subject="the start page"),
            ]
        ),
        site=True,
    )


def _card(explorer: Explorer, store: Explored, choice: Choice | None) -> dict[str, Any]:
    measured, attrs = store.measured, store.measured.attrs
    group = measured.group(CLEAN)
    assert group is not None, "every store has the condition clean"
    correct = np.asarray(group["correct"].values)[measured.measured_images]
    labeled = int((correct >= 0).sum())
    images = measured.measured_images.tolist() if choice is None else choice.images[store.number]
    return {
        "address": f"s{store.number}/index.html",
        "title": store.title,
        "model": str(attrs["model"]),
        "data": str(attrs["data"]),
        "images": measured.images,
        "classes": measured.num_classes,
        "blocks": measured.blocks,
        "labeled": labeled,
        "correct": int((correct == 1).sum()),
        "atlas": f"s{store.number}/atlas/index.html" if store.has_atlas else None,
        "compared": [
            [other.title, f"compare/{store.number}-{other.number}.html"]
            for other in explorer.stores
            if other.number > store.number
        ],
        "first_photos": [f"s{store.number}/thumbs/{index}.jpg" for index in images[:4] if store.dataset is not None],
        "notes": list(store.notes),
    }


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    async def start(request: Request) -> Response:
        return answers.page(await run_in_threadpool(start_page, explorer))

    return [Route("/", start), Route("/index.html", start)]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    yield "index.html", start_page(explorer, choice)


PAGE = Page(_routes, {"/index.html": openapi.get("The start page.", content="text/html")}, _export)
