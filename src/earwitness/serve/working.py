"""Work on jobs, one at a time per process, and the webhooks that report their end."""

import asyncio
import hmac
import json
import logging
import time
from contextlib import aclosing, suppress
from urllib.parse import urlsplit

from earwitness.captioning.locked import LockedFile
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.segments import Segment
from earwitness.errors import ConfigError, EarwitnessError
from earwitness.io.webhook import send
from earwitness.serve.hosts import is_named
from earwitness.serve.jobs import Job, Jobs
from earwitness.serve.options import request_settings
from earwitness.serve.service import Limits, Service, Upload
from earwitness.serve.settings import Settings

_LOG = logging.getLogger("earwitness.jobs")
_POLL_SECONDS = 1.0
_TIDY_SECONDS = 3600.0
SIGNATURE = "X-Earwitness-Signature"
"""header of a webhook: `t=<Unix time>,v1=<hex HMAC-SHA256 of "<time>.<body>">`"""


class Worker:
    """Works on jobs until it is canceled; the next start restarts the job that was running."""

    def __init__(self, service: Service, jobs: Jobs) -> None:
        self._service, self._jobs = service, jobs
        self._tries = 1 + len(service.settings.webhook_waits)
        self._telling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Works."""
        tidied = 0.0
        try:
            while True:
                if time.monotonic() - tidied > _TIDY_SECONDS:
                    await asyncio.to_thread(self._jobs.tidy, self._service.settings.job_days)
                    tidied = time.monotonic()
                claimed = await asyncio.to_thread(self._jobs.claim, self._tries)
                if claimed is None or not self._service.ready:
                    if claimed is not None:
                        claimed[1].close(remove=True)
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                await self._take_up(*claimed)
        finally:
            for task in self._telling:
                task.cancel()
            if self._telling:
                await asyncio.wait(self._telling)

    async def _take_up(self, job: Job, lock: LockedFile) -> None:
        try:
            if job.ended is None:
                await self._caption(job)
        except BaseException:
            lock.close(remove=True)
            raise
        if job.webhook is None:
            lock.close(remove=True)
            return
        # The next job need not wait for somebody's server.
        task = asyncio.create_task(self._tell(job.id, lock))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _caption(self, job: Job) -> None:
        self._jobs.change(job.id, state="running", seconds=0)
        _LOG.info("job", extra={"fields": {"id": job.id, "status": "running"}})
        error, record = None, None
        try:
            record = await self._record(job)
        except EarwitnessError as refusal:
            error = str(refusal)
        except Exception as fault:
            _LOG.exception("job", extra={"fields": {"id": job.id}})
            error = f"internal error ({type(fault).__name__}); see the service's log"
        state = "done" if error is None else "failed"
        self._jobs.change(job.id, state=state, ended=time.time(), record=record, error=error)
        self._jobs.sound(job.id).unlink(missing_ok=True)
        _LOG.info("job", extra={"fields": {"id": job.id, "status": state}})

    async def _record(self, job: Job) -> str:
        service, own = self._service, self._service.settings
        options = CaptionOptions.model_validate_json(job.options)
        settings = request_settings(service, options, timed=True)
        # As many windows for each second as a request may have.
        windows = round(own.max_windows * max(1.0, own.job_max_seconds / own.max_seconds))
        limits = Limits(own.job_max_bytes, own.job_max_seconds, windows)
        sound = service.sound(job.file, settings)
        segments: list[Segment] = []
        with self._jobs.sound(job.id).open("rb") as file:
            arriving = service.segments(Upload(job.file, file), sound, limits)
            async with aclosing(arriving):
                async for segment in arriving:
                    segments.append(segment)
                    if self._jobs.find(job.id) is None:
                        raise ConfigError("the job was deleted")
                    self._jobs.change(job.id, seconds=segment.end)
        self._jobs.change(job.id, seconds=sound.seconds)
        return json.dumps(sound.result_of(segments).record(service.captioner.name))

    async def _tell(self, job: str, lock: LockedFile) -> None:
        """Tries the webhook until it answers or its tries are used up; each try is recorded."""
        waits = (0.0, *self._service.settings.webhook_waits)
        try:
            while (now := self._jobs.find(job)) and not now.delivered and now.tries < self._tries:
                await asyncio.sleep(waits[now.tries])
                secret = self._service.settings.webhook_secret
                delivered, answer = await asyncio.to_thread(post, now, secret)
                self._jobs.change(job, tries=now.tries + 1, delivered=delivered, answer=answer)
                told = {"id": job, "webhook": answer, "try": now.tries + 1}
                _LOG.log(
                    logging.INFO if delivered else logging.WARNING,
                    "webhook",
                    extra={"fields": told},
                )
        finally:
            lock.close(remove=True)


def post(job: Job, secret: str) -> tuple[bool, str]:
    """Whether the job's webhook accepted it (a status of 200 to 299), and its answer in words."""
    body = json.dumps(job.public()).encode()
    stamp = str(round(time.time()))
    answer = send(job.webhook or "", body, {SIGNATURE: signature(secret, stamp, body)})
    return answer.taken, f"status {answer.status}" if answer.status else answer.problem


def signature(secret: str, stamp: str, body: bytes) -> str:
    """The signature of a webhook sent at the Unix time `stamp`."""
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()
    return f"t={stamp},v1={digest}"


def check_webhook(url: str | None, settings: Settings) -> None:
    """Raises ConfigError for a webhook that the service may not call."""
    if url is None:
        return
    if not settings.webhook_secret or not settings.webhook_hosts:
        raise ConfigError("this service calls no webhooks (--webhook-host, --webhook-secret)")
    with suppress(ValueError):
        parts = urlsplit(url)
        known = is_named(parts.hostname or "", settings.webhook_hosts)
        if parts.scheme in ("http", "https") and known and parts.username is None:
            return
    hosts = ", ".join(settings.webhook_hosts)
    raise ConfigError(f"the webhook {url[:80]!r}; expected http(s) and the host {hosts}")
