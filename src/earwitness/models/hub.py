"""The Hugging Face hub: weights fetched by name and pinned to a commit, model folders uploaded.

A name is a folder, `owner/name`, or `owner/name@revision` (a branch, a tag or a commit). If there
is a folder of that relative name, it comes first. Only safetensors, settings and tokenizer files
are fetched: no pickles, no code. They are in the hub's own cache, whose path names the commit, so
that a model folder can refer to it.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from earwitness.config import Strict
from earwitness.errors import CheckpointError, ConfigError, one_line
from earwitness.models.json_files import read_json, write_json

FETCHED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
"""what is fetched: weights, settings and tokenizer files"""

LEFT = ["consolidated*", "original/*", "onnx/*", "openvino/*"]
"""the same weights in forms that are not read"""

_OWNED = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"(?P<repo>{_OWNED})(?:@(?P<revision>\w[\w.+/-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubName(NamedTuple):
    """A repository and the revision asked for; None is its main branch."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


class HubPart(Strict):
    """Where the weights of a part are: a repository at a commit, as in `earwitness.json`."""

    hub: str = Field(pattern=rf"^{_OWNED}$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")

    def __str__(self) -> str:
        return f"{self.hub}@{self.revision}"


class WeightsOrigin(NamedTuple):
    """Where the weights of a module were loaded from."""

    folder: Path

    @property
    def part(self) -> HubPart | None:
        """The commit on the hub that the folder holds; None for any other folder."""
        return hub_part(self.folder)


def hub_name(name: Path | str) -> HubName | None:
    """`name` as a name on the hub; None if it can only be a path."""
    found = _NAME.fullmatch(name.as_posix() if isinstance(name, Path) else name)
    return HubName(found["repo"], found["revision"]) if found else None


def _checked(value: Any) -> Any:
    text = str(value).strip()
    if not text or "://" in text:
        raise ValueError("expected a folder, owner/name, or owner/name@revision")
    if re.match(rf"{_OWNED}@", text, re.ASCII) and not hub_name(text) and not Path(text).exists():
        raise ValueError("expected a branch, a tag or a commit after '@'")
    return value


WeightsName = Annotated[Path, BeforeValidator(_checked)]
"""a recipe's field that names weights: a folder, `owner/name`, or `owner/name@revision`"""


def resolve(name: Path | str, record: Path | None = None) -> Path:
    """The folder of the weights `name`, fetched from the hub if they are not here yet.

    `record`: a JSON file that keeps the commit at which a name was first resolved; later calls use
    the same one. If the name has no commit, the commit is printed on stderr.

    Raises:
        CheckpointError: there is no such folder or repository, the hub cannot be reached or
            refuses, or the repository holds no safetensors.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    wanted = hub_name(name)
    if wanted is None:
        raise CheckpointError(
            f"{name}: no such folder; expected a folder, or a name on the Hugging Face hub: "
            "owner/name or owner/name@revision"
        )
    known = read_json(record) if record and record.is_file() else {}
    pinned = known.get(str(wanted))
    found = _fetched(wanted, pinned if isinstance(pinned, str) else wanted.revision)
    part = hub_part(found)
    if part is not None and os.environ.get("RANK", "0") == "0":
        if record and pinned != part.revision:
            write_json(record, {**known, str(wanted): part.revision})
        if part.revision not in (wanted.revision, pinned):
            print(f"earwitness: {wanted} resolves to commit {part.revision}", file=sys.stderr)
    return found


def resolved(recipe: Strict, fields: tuple[str, ...], record: Path) -> Any:
    """`recipe` with folders instead of the names of weights in its `fields`.

    Raises:
        CheckpointError: as for `resolve`.
    """
    names = {field: getattr(recipe, field) for field in fields}
    folders = {field: resolve(name, record) for field, name in names.items() if name is not None}
    return recipe.model_copy(update=folders)


def hub_part(folder: Path | str) -> HubPart | None:
    """The commit and repository that `folder` holds; None if it is not a snapshot in the hub's
    cache.
    """
    names = Path(os.path.abspath(folder)).parts[-3:]
    if len(names) < 3 or names[1] != "snapshots" or not _COMMIT.fullmatch(names[2]):
        return None
    kind, _, repo = names[0].partition("--")
    repo = repo.replace("--", "/")
    return HubPart(hub=repo, revision=names[2]) if kind == "models" and hub_name(repo) else None


def push(
    folder: Path, repo: str, *, private: bool | None = None, revision: str | None = None
) -> str:
    """Uploads a model folder to the hub and returns its name there, `owner/name@commit`.

    The repository and the branch `revision` are created if they are missing. `private` applies to
    a new repository; None is its owner's default. Files that only the hub holds stay there.

    Raises:
        ConfigError: `repo` is not owner/name.
        CheckpointError: `folder` is not a model folder, or the hub cannot be reached or refuses.
    """
    wanted = hub_name(repo)
    if wanted is None or wanted.revision:
        raise ConfigError(f"{repo}: expected owner/name, as in 'ada/lamb-audiocaps'")
    read_json(folder / "earwitness.json")
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi(library_name="earwitness")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=f"{folder.name}: model folder of earwitness",
            ignore_patterns=["*.new", ".cache/*"],
        )
    except errors.LocalTokenNotFoundError:
        raise CheckpointError(f"{repo}: not logged in to the hub; run 'hf auth login'") from None
    except _failures() as error:
        raise CheckpointError(f"{repo}: not uploaded, {_refusal(error)}") from None
    return f"{repo}@{done.oid}"


def _fetched(wanted: HubName, revision: str | None) -> Path:
    """The complete snapshot of `wanted` in the hub's cache."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        # The hub leaves one of its many parameters without a type.
        found = huggingface_hub.snapshot_download(  # pyright: ignore[reportUnknownMemberType]
            wanted.repo, revision=revision, allow_patterns=FETCHED, ignore_patterns=LEFT
        )
    except errors.GatedRepoError:
        problem = (
            f"its owner asks for consent; accept the license at https://huggingface.co/"
            f"{wanted.repo} and run 'hf auth login'"
        )
    except errors.RepositoryNotFoundError:
        problem = (
            "neither a folder here nor a repository on the hub that this login may see; check the "
            "name, and for a private one run 'hf auth login'"
        )
    except errors.RevisionNotFoundError:
        problem = (
            f"the repository has no revision {revision!r}; expected a branch, a tag or a commit"
        )
    except errors.LocalEntryNotFoundError as error:
        problem = _not_cached(wanted, revision, error)
    except _failures() as error:
        problem = f"not fetched, {_refusal(error)}"
    else:
        return _with_safetensors(Path(found), wanted)
    raise CheckpointError(f"{wanted}: {problem}")


def _not_cached(wanted: HubName, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif status is not None:
        why = f"huggingface.co answers HTTP {status}"
    else:
        why = "huggingface.co cannot be reached"
    at = f" --revision {revision}" if revision else ""
    return (
        f"no such folder, not (or not completely) in the cache {constants.HF_HUB_CACHE}, and "
        f"{why}; with a network connection, run 'hf download {wanted.repo}{at}'"
    )


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises when the network, the disk or the hub fails."""
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    return HTTPError, HFValidationError, OSError


def _refusal(error: Exception) -> str:
    """What the hub, the network or the disk said, in a few words."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses this login (HTTP {status}); run 'hf auth login' with write access"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return one_line(error)[:200] or type(error).__name__


def _with_safetensors(folder: Path, wanted: HubName) -> Path:
    if next(folder.rglob("*.safetensors"), None) is None:
        raise CheckpointError(
            f"{wanted}: holds no safetensors; pickled weights (.bin, .pt) can run code when loaded "
            f"and are never read, but its pull requests may hold a conversion: "
            f"{wanted.repo}@refs/pr/<number>"
        )
    return folder
