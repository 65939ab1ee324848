"""The endpoints of jobs: long sounds, captioned in the background."""

import asyncio
import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from earwitness.captioning.options import CaptionOptions
from earwitness.errors import ConfigError
from earwitness.serve import answers, schema
from earwitness.serve.jobs import Job, Jobs
from earwitness.serve.limits import JOBS
from earwitness.serve.options import JobRequest, check_model, request_settings
from earwitness.serve.service import Service, uploaded
from earwitness.serve.working import check_webhook

router = APIRouter(prefix=JOBS)
_READ = schema.problems(400, 401, 404, 429)


@router.post("", status_code=202, responses=schema.JOB)
async def create(request: Request, form: JobRequest) -> Response:
    """Accepts a sound to be captioned later; it may be hours long.

    The fields are the options of `earwitness caption`. The answer is the job; its `id` leads to its
    status and result. Jobs survive a restart; one that was running starts over.
    """
    service, jobs = _service(request), _jobs(request)
    settings = service.settings
    check_model(service, form.model)
    check_webhook(form.webhook, settings)
    options = CaptionOptions.model_validate(
        form.model_dump(include=set(CaptionOptions.model_fields))
    )
    request_settings(service, options, timed=True)
    upload = uploaded(form.file)
    if await asyncio.to_thread(jobs.waiting) >= settings.max_jobs:
        raise HTTPException(
            429, f"{settings.max_jobs} jobs are waiting, the limit; try again later"
        )
    assert settings.jobs is not None
    sound = await asyncio.to_thread(_kept, upload.file, settings.jobs)
    row = (_owner(request), upload.name, options.model_dump_json(), form.webhook, sound)
    job = await asyncio.to_thread(jobs.add, *row)
    place = request.url_for("status", job=job.id).path
    return JSONResponse(job.public(), 202, {"Location": place})


@router.get("", responses=_READ)
def listed(request: Request) -> dict[str, Any]:
    """The latest hundred jobs of the requesting key."""
    jobs = _jobs(request).of(_owner(request))
    return {"object": "list", "data": [job.public() for job in jobs]}


@router.get("/{job}", responses=_READ)
def status(request: Request, job: str) -> dict[str, Any]:
    """The state of a job: queued, running, done or failed; seconds of sound so far; the error."""
    return _found(request, job).public()


@router.get("/{job}/result", responses=schema.JOB_RESULT)
def result(
    request: Request,
    job: str,
    response_format: Annotated[
        Literal["json", "text", "srt", "vtt"], Query(description="What comes back.")
    ] = "json",
) -> Response:
    """The captions of a job that is done."""
    found = _found(request, job)
    if found.state == "failed":
        raise HTTPException(409, f"the job failed: {found.error}")
    if found.state != "done":
        raise HTTPException(409, f"the job is {found.state}; its result is ready when it is done")
    return answers.captioned(found.result(), response_format)


@router.delete("/{job}", status_code=204, responses=_READ)
def delete(request: Request, job: str) -> Response:
    """Deletes a job with its sound and result; one that is running is stopped."""
    _jobs(request).remove(_found(request, job).id)
    return Response(status_code=204)


def _service(request: Request) -> Service:
    return request.app.state.service


def _jobs(request: Request) -> Jobs:
    jobs = request.app.state.jobs
    if jobs is None:
        raise HTTPException(
            404, "this service takes no jobs; 'earwitness serve --jobs FOLDER' does"
        )
    return jobs


def _found(request: Request, job: str) -> Job:
    found = _jobs(request).find(job, _owner(request))
    if found is None:
        raise HTTPException(404, f"there is no job {job[:80]!r}")
    return found


def _owner(request: Request) -> str:
    """Whose jobs a request may see: those of its key, everybody's if no key is required."""
    if not _service(request).settings.api_keys:
        return ""
    key = request.headers.get("authorization", "").partition(" ")[2].strip()
    return sha256(key.encode()).hexdigest()[:16]


def _kept(file: BinaryIO, folder: Path) -> Path:
    """The upload as a file in `folder`. Raises ConfigError if there is no room for it."""
    number, name = tempfile.mkstemp(prefix="upload-", dir=folder)
    try:
        with os.fdopen(number, "wb") as copy:
            file.seek(0)
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigError(f"the sound could not be kept ({error.strerror})") from None
    return Path(name)
