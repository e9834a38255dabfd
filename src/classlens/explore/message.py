"""Pages that say one thing: an error, or that the model is at work."""

from __future__ import annotations

from classlens.explore.explorer import Explored, Explorer
from classlens.explore.jobs import Job
from classlens.explore.site import site_element
from classlens.render.html.page import assembled, json_element
from classlens.text import visible

PATIENCE = 0.7
"""Seconds until a reader sees that a job is at work."""


def message_page(explorer: Explorer, path: str, sentence: str) -> str:
    """A page with an error."""
    return _page(explorer, path.lstrip("/"), {"title": "This did not work", "text": sentence, "job": None}, None)


def waiting_page(explorer: Explorer, path: str, job: Job, store: Explored | None, subject: str) -> str:
    """A page that shows the progress of a job, and loads itself again when it has ended."""
    return _page(explorer, path, {"title": subject, "text": job.text, "job": job.number}, store)


def _page(explorer: Explorer, path: str, message: dict[str, object], store: Explored | None) -> str:
    return assembled(
        "classlens.render.html.explore",
        "classlens.render.html.explore.message",
        title=f"classlens: {message['title']}",
        version=explorer.version,
        data="\n".join(
            [
                site_element(explorer, path, store=store),
                json_element("message-record", visible(message), subject="the message"),
            ]
        ),
        site=True,
    )
