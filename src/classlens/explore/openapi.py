"""Pieces of the OpenAPI description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_REFUSALS = {
    400: "the request cannot be answered",
    404: "there is nothing at this address",
    413: "the request is too large",
    503: "too many requests wait for the model",
}


def whole_number(name: str) -> dict[str, Any]:
    """A number of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}


def text(name: str, *, where: str = "query", required: bool = False) -> dict[str, Any]:
    """A text of the query, or of the path."""
    schema = {"type": "string", "minLength": 1} if where == "path" else {"type": "string"}
    return {"name": name, "in": where, "required": required or where == "path", "schema": schema}


def get(summary: str, *parameters: dict[str, Any], content: str = "application/json") -> dict[str, Any]:
    """The description of an address that is read."""
    return {"get": _operation(summary, parameters, content)}


def post(
    summary: str,
    *parameters: dict[str, Any],
    schema: dict[str, Any],
    accepts: Sequence[str] = ("application/json",),
    content: str = "application/json",
) -> dict[str, Any]:
    """The description of an address that takes a body."""
    body = {"required": True, "content": {kind: {"schema": schema} for kind in accepts}}
    return {"post": {**_operation(summary, parameters, content), "requestBody": body}}


def _operation(summary: str, parameters: Sequence[dict[str, Any]], content: str) -> dict[str, Any]:
    kind = {"application/json": {"schema": {"type": "object"}}}.get(content, {})
    success = {"description": summary, "content": {content: kind}}
    refusal = {"application/json": {"schema": _ERROR}}
    if content == "text/html":
        refusal["text/html"] = {}
    refusals = {str(status): {"description": why, "content": refusal} for status, why in _REFUSALS.items()}
    waiting = {"202": success} if content == "text/html" else {}
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {"200": success, **waiting, **refusals},
    }
