"""The exceptions that a user can cause. Each message is one sentence: what was given and what was
expected.
"""

import json
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class EarwitnessError(Exception):
    """Base class of every error that earwitness raises on purpose."""


class AudioError(EarwitnessError):
    """A sound that cannot be read, or is outside the limits."""


class AudioTooLargeError(AudioError):
    """A sound longer or larger than the limit."""


class ConfigError(EarwitnessError):
    """A recipe or a setting that is invalid or inconsistent."""


class CheckpointError(EarwitnessError):
    """A model folder that is missing, damaged, or of another format."""


class DataError(EarwitnessError):
    """A manifest, caption file or embedding file that cannot be used."""


class MissingDependencyError(EarwitnessError):
    """An optional package or program that is needed but not installed."""


class TrainingError(EarwitnessError):
    """A training run that cannot continue."""


def pip_install(extra: str) -> str:
    """The command that installs an extra (`train`, or several: `serve,demo`) from the same place as
    earwitness itself: an index, a wheel, a clone or a repository.

    It names this Python if the shell's `pip` belongs to another one.
    """
    pip = shutil.which("pip")
    own = pip is not None and Path(pip).parent == Path(sys.executable).parent
    program = ["pip"] if own else [sys.executable, "-m", "pip"]
    return " ".join([*map(shlex.quote, program), "install", *_with_extra(_origin(), extra)])


def _origin() -> dict[str, Any]:
    """Where earwitness was installed from, as recorded by pip (PEP 610); empty for an index."""
    try:
        return json.loads(distribution("earwitness").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}


def _with_extra(origin: dict[str, Any], extra: str) -> list[str]:
    """The arguments of `pip install`, quoted for the shell."""
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        return [f"'earwitness[{extra}] @ {origin['vcs_info'].get('vcs', 'git')}+{url}'"]
    from urllib.request import url2pathname  # this also imports an HTTP client

    folder = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    if folder is None or not folder.exists():
        return [f"'earwitness[{extra}]'"]
    here = "." if folder == Path.cwd() else str(folder)
    editable = origin.get("dir_info", {}).get("editable", False)
    return [*(["-e"] if editable else []), shlex.quote(f"{here}[{extra}]")]


def one_line(text: object) -> str:
    """`text`, or the message of an error, with every run of whitespace as one space."""
    return " ".join(str(text).split())


def unexpected(name: str, error: Exception) -> EarwitnessError:
    """An error for the file `name`, caused by `error`, an unexpected exception (a bug).

    A job over many files skips that file, as it skips one that cannot be read.
    """
    said = f" ({one_line(error)})" if str(error).strip() else ""
    found = EarwitnessError(f"{name}: unexpected {type(error).__name__}{said}")
    found.__cause__ = error
    return found
