"""How far work for the model has come."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.explore import answers, openapi
from classlens.explore.explorer import Explorer, NotFound
from classlens.explore.page import Page


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    async def job_state(request: Request) -> Response:
        job = explorer.jobs.find(request.path_params["number"])
        if job is None:
            raise NotFound("this work is no longer kept: ask for its page again")
        return answers.data(
            {"state": job.state, "text": job.text, "ahead": explorer.jobs.ahead(job), "error": job.error}
        )

    return [Route("/api/jobs/{number:int}", job_state)]


PAGE = Page(
    _routes,
    {"/api/jobs/{number}": openapi.get("State of a job.", openapi.whole_number("number"))},
)
