"""The log of the service on stderr: lines of text, or one JSON object per line."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

LogFormat = Literal["text", "json"]


class Lines(logging.Formatter):
    """Time, level, what happened, and its fields as `name=value` or as JSON."""

    def __init__(self, kind: LogFormat = "text") -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback of a fault."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = getattr(record, "fields", {})
        fault = self.formatException(record.exc_info) if record.exc_info else ""
        if self._kind == "json":
            line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps({**line, **fields, **({"fault": fault} if fault else {})})
        told = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{time} {record.levelname} {record.getMessage()}{told}"
        return f"{text}\n{fault}" if fault else text


class Logs(NamedTuple):
    """What is logged, and how.

    `verbose` logs a line per request and per change of a job; `access` uvicorn's own lines, with
    paths as they were asked for. Nothing of a sound, a caption or a file name is logged.
    """

    kind: LogFormat = "text"
    verbose: bool = False
    access: bool = False

    def config(self) -> dict[str, Any]:
        """The logging of uvicorn and of the service, for `logging.config.dictConfig`."""
        levels = {"uvicorn.error": "WARNING"}
        levels["uvicorn.access"] = "INFO" if self.access else "WARNING"
        levels["earwitness"] = "INFO" if self.verbose else "WARNING"
        return {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": Lines, "kind": self.kind}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "loggers": {
                name: {"handlers": ["stderr"], "level": level, "propagate": False}
                for name, level in levels.items()
            },
        }
