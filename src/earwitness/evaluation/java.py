"""Runs the Java programs behind METEOR, SPICE and the PTB tokenizer, with a time limit."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from earwitness.errors import MissingDependencyError, pip_install

OLDEST_JAVA = 8
_JAVA_HINT = (
    "install a Java runtime (any version from 8 on, for example 'apt install "
    "default-jre-headless') "
    "and put it on PATH, or set JAVA_HOME"
)


class MetricNotRunError(MissingDependencyError):
    """A metric that cannot be computed here; the message says what is missing or went wrong."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: the program, its version line and its major version."""

    program: Path
    version: str
    major: int


def find_java(java: Path | str | None = None) -> Path:
    """The Java program: `java` if given, else the one in JAVA_HOME, else the one on PATH.

    Raises:
        MetricNotRunError: Java is not found.
    """
    if java is not None:
        found = shutil.which(str(java))
        if found is None:
            raise MetricNotRunError(f"Java not found: {java} is not a program; {_JAVA_HINT}")
        return Path(found)
    home = os.environ.get("JAVA_HOME")
    if home and (found := shutil.which("java", path=str(Path(home) / "bin"))):
        return Path(found)
    if found := shutil.which("java"):
        return Path(found)
    raise MetricNotRunError(f"Java not found (neither in JAVA_HOME nor on PATH); {_JAVA_HINT}")


def java_runtime(java: Path | str | None = None) -> Java:
    """The Java runtime with its version, as reported by the program itself.

    Raises:
        MetricNotRunError: Java is not found, does not start, or is older than version 8.
    """
    program = find_java(java)
    lines = run_java(program, ["-version"], timeout=60.0).stderr.splitlines()
    line = next((line for line in lines if "version" in line), "")
    match = re.search(r'"(?:1\.)?(\d+)', line)
    if match is None:
        raise MetricNotRunError(f"{program}: '-version' printed no Java version")
    if int(match[1]) < OLDEST_JAVA:
        raise MetricNotRunError(f"{program}: {line} is too old; version 8 or newer is needed")
    return Java(program, line, int(match[1]))


def run_java(
    program: Path, arguments: Sequence[str], *, text: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs Java with `arguments` and `text` as standard input, and returns the finished process.

    It has its own process group, so that a run over the limit leaves no processes behind.

    Raises:
        MetricNotRunError: it does not start, takes longer than `timeout` seconds, or fails.
    """
    command = [str(program), *arguments]
    with start(command, subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            raise too_slow(timeout) from None
        except BaseException:
            kill(process)
            raise
    if process.returncode != 0:
        raise failure(process.returncode, errors)
    return subprocess.CompletedProcess(command, 0, output, errors)


def start(command: Sequence[str], errors: IO[str] | int) -> "subprocess.Popen[str]":
    """Starts a program with pipes and its own process group, which `kill` ends.

    Raises:
        MetricNotRunError: it does not start.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=sys.platform != "win32",
        )
    except OSError as error:
        raise MetricNotRunError(f"{command[0]}: does not start ({error.strerror})") from None


def kill(process: "subprocess.Popen[str]") -> None:
    """Kills a program started by `start`, and its child processes."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def too_slow(timeout: float) -> MetricNotRunError:
    """The error for a run over its time limit."""
    return MetricNotRunError(
        f"Java took longer than the limit of {timeout:g} s and was stopped; a longer limit may help"
    )


def failure(code: int, errors: str) -> MetricNotRunError:
    """The error for a failed run: its exit code and its first line of output."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return MetricNotRunError(
        f"Java failed with exit code {code}: {lines[0][:300] if lines else 'no message'}"
    )


def package_file(*parts: str) -> Path | None:
    """The path of a file in the installed pycocoevalcap (without importing it); None if absent."""
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *parts)
        if path.exists():
            return path
    return None


def required_jar(given: Path | None, *parts: str) -> Path:
    """The jar at `given`, else the one that comes with pycocoevalcap, at `parts`.

    Raises:
        MetricNotRunError: the jar is not found.
    """
    if given is not None:
        if not given.is_file():
            raise MetricNotRunError(f"{given}: no such file; expected {parts[-1]}")
        return given
    found = package_file(*parts)
    if found is None:
        raise MetricNotRunError(
            f"{parts[-1]} is missing; it comes with the package pycocoevalcap: "
            f"{pip_install('eval')}"
        )
    return found
