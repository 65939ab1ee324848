"""A Hugging Face hub in memory, spoken to by the real client over its real HTTP layer, and a cache
in the hub's format.
"""

import hashlib
import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, errors, set_client_factory
from huggingface_hub.utils import _http

httpx: Any = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])
"""the HTTP library of the installed huggingface_hub"""


def commit_of(files: dict[str, bytes]) -> str:
    code = hashlib.sha1()
    for name, content in sorted(files.items()):
        code.update(name.encode() + hashlib.sha256(content).digest())
    return code.hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def publish(cache: Path, repo: str, folder: Path, revision: str = "main") -> str:
    """Puts `folder` into `cache` as the hub's client leaves it: blobs, refs, snapshots of links."""
    files = files_of(folder)
    commit = commit_of(files)
    storage = cache / ("models--" + repo.replace("/", "--"))
    ref = storage / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)
    for name, content in files.items():
        blob = storage / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = storage / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(os.path.relpath(blob, link.parent))
    return commit


class FakeHub:
    """Repositories by name, each revision's files; `problems` answer before anything else."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.problems: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []

    def add(self, repo: str, files: dict[str, bytes], revision: str = "main") -> str:
        commit = commit_of(files)
        self.repos.setdefault(repo, {}).update({revision: files, commit: files})
        return commit

    def answer(self, request: Any) -> Any:
        path = request.url.path
        self.asked.append(path)
        for start, (status, code) in self.problems.items():
            if path.startswith(start):
                return httpx.Response(status, headers={"X-Error-Code": code}, request=request)
        api = re.fullmatch(r"/api/models/(\w[\w.-]*/[\w.-]+)/(revision|tree)/(.+)", path)
        if api:
            return self._api(request, api[1], api[2], api[3].replace("%2F", "/"))
        file = re.fullmatch(r"/(\w[\w.-]*/[\w.-]+)/resolve/([0-9a-f]{40})/(.+)", path)
        if file and file[1] in self.repos:
            return self._file(request, file[1], file[2], file[3])
        return httpx.Response(404, headers={"X-Error-Code": "RepoNotFound"}, request=request)

    def _api(self, request: Any, repo: str, what: str, revision: str) -> Any:
        if repo not in self.repos:
            return httpx.Response(401, headers={"X-Error-Code": "RepoNotFound"}, request=request)
        if revision not in self.repos[repo]:
            headers = {"X-Error-Code": "RevisionNotFound"}
            return httpx.Response(404, headers=headers, request=request)
        files = self.repos[repo][revision]
        if what == "revision":
            about = {"id": repo, "sha": commit_of(files), "siblings": [], "tags": []}
            return httpx.Response(200, json=about, request=request)
        tree = [
            {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
            for name, content in files.items()
        ]
        return httpx.Response(200, json=tree, request=request)

    def _file(self, request: Any, repo: str, commit: str, name: str) -> Any:
        content = self.repos[repo][commit][name]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit}
        headers |= {"Content-Length": str(len(content))}
        body = b"" if request.method == "HEAD" else content
        return httpx.Response(200, headers=headers, content=body, request=request)


@contextmanager
def served(hub: FakeHub, cache: Path, monkeypatch: Any) -> Iterator[FakeHub]:
    """The client talks to `hub` and keeps what it gets in `cache`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(hub.answer)))
    try:
        yield hub
    finally:
        set_client_factory(_http.default_client_factory)


def offline(cache: Path, monkeypatch: Any) -> Path:
    """The client may ask nobody and knows what is in `cache`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


class CopyingApi:
    """`HfApi` whose uploads land in a cache, where `snapshot_download` finds them."""

    cache: Path
    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, **_: Any) -> None: ...

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id, **options}))

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, revision: str | None, **options: Any
    ) -> Any:
        self.calls.append(("upload_folder", {"repo_id": repo_id, "revision": revision, **options}))
        commit = publish(self.cache, repo_id, folder_path, revision or "main")
        return type("Done", (), {"oid": commit})


def copying_api(cache: Path, monkeypatch: Any) -> list[tuple[str, dict[str, Any]]]:
    """Uploads go into `cache`; the list of calls that were made."""
    import huggingface_hub

    offline(cache, monkeypatch)
    calls: list[tuple[str, dict[str, Any]]] = []
    api = type("Api", (CopyingApi,), {"cache": cache, "calls": calls})
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    return calls


def write(folder: Path, **files: Any) -> Path:
    """A folder of `files`; dots in names are written as `__`, values are JSON or bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
