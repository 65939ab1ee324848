"""A user's program, started for each report, without a shell."""

import json
import shlex
import shutil
import subprocess

from earwitness.errors import ConfigError
from earwitness.live.sinks import LiveRecord

LONGEST_S = 60.0
"""seconds after which a program is stopped"""

FIELDS = ("type", "text", "start", "end", "score", "time", "source")
"""what the arguments may contain in braces"""


class Command:
    """Starts a program with arguments in which `{text}` and the other `FIELDS` are filled in.

    The line is split into arguments once, before anything is filled in, and no shell reads them.
    The record is its standard input, as a line of JSON.
    """

    def __init__(self, line: str) -> None:
        """Raises ConfigError: unclosed quotes, no such program, or an unknown field."""
        try:
            self._arguments = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"--run {line!r}: cannot be split into arguments ({error})") from None
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise ConfigError(f"--run {line!r}: no such program; expected one on this machine")
        self.name = f"--run {self._arguments[0]}"
        try:
            self._filled(dict.fromkeys(FIELDS, ""))
        except (KeyError, IndexError, ValueError):
            raise ConfigError(
                f"--run {line!r}: expected only {', '.join(f'{{{f}}}' for f in FIELDS)} in braces"
            ) from None

    def deliver(self, record: LiveRecord) -> str | None:
        """Runs the program to its end; what went wrong, None if its exit code is 0."""
        text = record.get("caption", record.get("event", ""))
        score = record.get("score", record.get("probability", ""))
        fields = {"end": "", "time": "", **record, "text": text, "score": score}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            done = subprocess.run(
                self._filled(fields),
                input=line.encode(),
                stdout=subprocess.DEVNULL,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {LONGEST_S:g} s"
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        return f"ended with exit code {done.returncode}" if done.returncode else None

    def _filled(self, fields: LiveRecord) -> list[str]:
        return [argument.format_map(fields) for argument in self._arguments]
