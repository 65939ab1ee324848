"""Jobs on disk: one row per job in SQLite, its sound beside it, a lock while it is worked on."""

import json
import secrets
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from earwitness.captioning.locked import LockedFile
from earwitness.captioning.writers import Record
from earwitness.errors import ConfigError, DataError

State = Literal["queued", "running", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, file TEXT NOT NULL,
  options TEXT NOT NULL, created REAL NOT NULL, ended REAL, seconds REAL NOT NULL DEFAULT 0,
  record TEXT, error TEXT, webhook TEXT, tries INTEGER NOT NULL DEFAULT 0,
  delivered INTEGER NOT NULL DEFAULT 0, answer TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, created);
"""
_DUE = """SELECT * FROM jobs WHERE state IN ('queued', 'running')
  OR (webhook IS NOT NULL AND NOT delivered AND tries < ?) ORDER BY created"""
_DAY = 86_400.0


@dataclass(frozen=True)
class Job:
    """A job as its row describes it."""

    id: str
    owner: str
    state: State
    file: str
    options: str
    created: float
    ended: float | None
    seconds: float
    record: str | None
    error: str | None
    webhook: str | None
    tries: int
    delivered: int
    answer: str | None

    def public(self) -> dict[str, Any]:
        """What the service says about it: times in Unix seconds, `seconds` of sound captioned."""
        told: dict[str, Any] = {"id": self.id, "status": self.state, "file": self.file}
        told |= {"created": round(self.created, 3), "ended": self.ended and round(self.ended, 3)}
        told |= {"seconds": round(self.seconds, 3), "error": self.error}
        if self.webhook is not None:
            hook = {"url": self.webhook, "tries": self.tries, "delivered": bool(self.delivered)}
            told["webhook"] = hook | {"answer": self.answer}
        return told

    def result(self) -> Record:
        """The record of a job that is done."""
        return json.loads(self.record or "{}")


class Jobs:
    """The jobs in a folder. Several processes may share it: a job belongs to whoever locks it."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError: the folder cannot be used."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._open() as table:
                table.execute("PRAGMA journal_mode=WAL")
                table.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"--jobs {folder}: cannot be used ({error})") from None

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A connection whose changes are on disk once it is closed."""
        table = sqlite3.connect(self._folder / "jobs.sqlite", timeout=30)
        table.row_factory = sqlite3.Row
        try:
            with table:
                yield table
        finally:
            table.close()

    def sound(self, job: str) -> Path:
        """Where the sound of a job is."""
        return self._folder / f"{job}.sound"

    def add(self, owner: str, file: str, options: str, webhook: str | None, sound: Path) -> Job:
        """A new job, whose sound is moved here from `sound`."""
        job = secrets.token_urlsafe(16).replace("-", "_")
        sound.rename(self.sound(job))
        row = (job, owner, "queued", file, options, time.time(), webhook)
        with self._open() as table:
            table.execute(
                "INSERT INTO jobs (id, owner, state, file, options, created, webhook)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return self.find(job, owner)  # type: ignore[return-value]

    def find(self, job: str, owner: str | None = None) -> Job | None:
        """The job; None if there is none, or if it is someone else's."""
        with self._open() as table:
            row = table.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        found = None if row is None else Job(**row)
        return found if found and owner in (None, found.owner) else None

    def of(self, owner: str, most: int = 100) -> list[Job]:
        """The latest jobs of an owner."""
        query = "SELECT * FROM jobs WHERE owner = ? ORDER BY created DESC LIMIT ?"
        with self._open() as table:
            return [Job(**row) for row in table.execute(query, (owner, most))]

    def waiting(self) -> int:
        """How many jobs have not ended."""
        query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        with self._open() as table:
            return table.execute(query).fetchone()[0]

    def change(self, job: str, **fields: object) -> None:
        """Writes fields of a job; nothing if it has been deleted meanwhile."""
        names = ", ".join(f"{name} = ?" for name in fields)
        with self._open() as table:
            table.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*fields.values(), job))

    def remove(self, job: str) -> None:
        """Deletes a job, with its sound and result."""
        with self._open() as table:
            table.execute("DELETE FROM jobs WHERE id = ?", (job,))
        self.sound(job).unlink(missing_ok=True)

    def tidy(self, days: float) -> None:
        """Deletes the jobs that ended more than `days` ago, and sounds without a job."""
        query, now = "SELECT id FROM jobs WHERE ended < ?", time.time()
        with self._open() as table:
            old = [row["id"] for row in table.execute(query, (now - days * _DAY,))]
        for job in old:
            self.remove(job)
        for path in (*self._folder.glob("upload-*"), *self._folder.glob("*.sound")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _DAY and self.find(path.stem) is None:
                    path.unlink()

    def claim(self, most_tries: int) -> tuple[Job, LockedFile] | None:
        """The oldest job with work left that nobody is working on, and its lock; None if there is
        none.

        A job whose process died is free again, as its lock ended with it.
        """
        with self._open() as table:
            due = [row["id"] for row in table.execute(_DUE, (most_tries,))]
        for job in due:
            with suppress(DataError):
                lock = LockedFile(self._folder / f"{job}.lock")
                # Another process may have ended it since the rows were read.
                now = self.find(job)
                if now is not None and (now.ended is None or now.webhook and not now.delivered):
                    return now, lock
                lock.close(remove=True)
        return None
