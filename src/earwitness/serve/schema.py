"""The answers of the endpoints in /openapi.json: every status, every media type."""

from typing import Any

from pydantic import BaseModel


class Fault(BaseModel):
    """What went wrong, in a sentence."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Problem(BaseModel):
    """An error in OpenAI's format."""

    error: Fault


_WHY = {
    400: "the form cannot be read, or the host is not served here",
    401: "no valid key",
    404: "no such path, model or job",
    409: "the job has no result: it is queued, running or failed",
    408: "the upload took too long to arrive",
    413: "larger or longer than the service accepts",
    415: "not a sound, damaged, or cut off",
    422: "a field that is missing, misspelled or out of range",
    429: "as many requests as the service takes are in progress, or too many wrong keys",
    500: "an internal error",
    503: "still loading, stopping, or longer in the queue than the limit",
}
_SOUND = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, for its `responses`."""
    return {status: {"model": Problem, "description": _WHY[status]} for status in statuses}


def _answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in kinds}
    content["application/json"] = {"schema": {"type": "object"}}
    return {200: {"description": "The captions.", "content": content}, **problems(*_SOUND)}


_TEXTS = ("text/plain", "application/x-subrip", "text/vtt", "text/event-stream")
CAPTIONS = _answers(*_TEXTS)
TRANSCRIPTIONS = _answers(*_TEXTS)
JOB = problems(*(status for status in _SOUND if status != 415))
JOB_RESULT = {**CAPTIONS, **problems(409)}
for _status in (408, 413, 415, 503):
    del JOB_RESULT[_status]
