"""Errors as answers: the status of each kind, and one sentence."""

from difflib import get_close_matches

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from earwitness.errors import (
    AudioError,
    AudioTooLargeError,
    ConfigError,
    DataError,
    EarwitnessError,
    MissingDependencyError,
)
from earwitness.serve.limits import JOBS, problem
from earwitness.serve.options import CaptionForm, JobForm, UnknownModelError

STATUS: dict[type[EarwitnessError], int] = {
    UnknownModelError: 404,
    AudioTooLargeError: 413,
    AudioError: 415,
    MissingDependencyError: 415,
    ConfigError: 422,
    DataError: 422,
}
"""the first class that fits an error gives its status; others are 500"""

_SEND_A_FILE = "expected a file, as curl -F file=@dog.wav sends it"


def handle(app: FastAPI) -> None:
    """Answers every error in OpenAI's format."""
    app.add_exception_handler(EarwitnessError, expected)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, fault)


async def expected(_: Request, error: Exception) -> Response:
    """An error of earwitness with its status."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    return problem(status, str(error))


async def refused(request: Request, error: Exception) -> Response:
    """A path or method that does not exist."""
    assert isinstance(error, HTTPException)
    sentence = str(error.detail)
    if sentence in ("Not Found", "Method Not Allowed"):
        sentence = (
            f"there is no {request.method} {request.url.path[:80]}; "
            "/openapi.json lists what there is"
        )
    return problem(error.status_code, sentence, dict(error.headers or {}))


async def invalid(request: Request, error: Exception) -> Response:
    """The first field that is missing, misspelled or out of range."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    field = first["loc"][-1]
    if first["type"] == "extra_forbidden":
        return problem(422, _unknown_field(str(field), request))
    if field in ("file", "merge") and first["type"] != "missing":
        return problem(422, f"the field {field!r} has no file name; {_SEND_A_FILE}")
    if first["type"] == "missing":
        return problem(422, f"the field {field!r} is missing")
    given = first.get("input")
    got = f", got {given!r}" if isinstance(given, str | int | float) else ""
    return problem(422, f"the field {field!r}: {first['msg'].lower()}{got}"[:400])


def _unknown_field(name: str, request: Request) -> str:
    form = JobForm if request.url.path.endswith(JOBS) else CaptionForm
    known = sorted(form.model_fields)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
    return f"unknown field {name!r}; {hint}"


async def fault(_: Request, error: Exception) -> Response:
    """An internal error, without its details."""
    return problem(500, f"internal error ({type(error).__name__}); see the service's log")
