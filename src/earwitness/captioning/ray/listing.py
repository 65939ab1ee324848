"""Lists sounds anywhere: local ones through `captioning.sources`, URLs through fsspec."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from earwitness.captioning.ray.remote import (
    RemoteFile,
    filesystem_of,
    row_count,
    tar_members,
)
from earwitness.captioning.sources import SHARDS, Source, find, listed, matches, read_manifest
from earwitness.errors import DataError, EarwitnessError, one_line
from earwitness.io.suffixes import SOUND_SUFFIXES
from earwitness.io.tables import Cells
from earwitness.io.text_files import url_in

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem as ArrowFileSystem

    Files = AbstractFileSystem | ArrowFileSystem


def find_anywhere(
    arguments: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    files: "Files | None" = None,
) -> list[Source]:
    """The sounds at paths and URLs, like `sources.find`; `files`: the file system of all arguments.

    Raises:
        DataError: a file system is unknown or cannot be listed.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        if files is None and url_in(argument) is None:
            several = find([argument], include, exclude)
        else:
            several = list(_remote(argument, include, exclude, files))
        for source in several:
            found.setdefault(source.name, source)
    return list(found.values())


def manifest_anywhere(path: str, column: str | None = None) -> list[Source]:
    """The sounds of a manifest (a file or a URL), which may name URLs. Raises DataError."""
    if url_in(path) is None:
        return read_manifest(path, column, partial(_listed, str(Path(path).parent)))
    files, place = filesystem_of(path)
    with tempfile.TemporaryDirectory(prefix="earwitness-") as folder:
        copy = Path(folder) / PurePosixPath(place).name
        try:
            files.get_file(place, str(copy))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({one_line(error)})") from None
        return read_manifest(str(copy), column, partial(_listed, path.rpartition("/")[0]))


def _listed(folder: str, name: str, row: Cells) -> Source:
    """The sound that a manifest names, relative to its `folder` or by URL."""
    if url_in(name) is None and url_in(folder) is None:
        return listed(Path(folder), name, row)
    url = name if url_in(name) else f"{folder}/{name}"
    shard, mark, member = url.rpartition("#")
    if not mark or not shard.endswith(tuple(SHARDS)):
        files, path = filesystem_of(url)
        return Source(name, RemoteFile(files, path))
    files, path = filesystem_of(shard)
    if shard.endswith(".parquet"):
        if member.isdecimal():
            return Source(name, RemoteFile(files, path, int(member)))
        return Source(name, b"", f"{name}: expected a row number, got {member!r}")
    start, size = str(row.get("offset") or ""), str(row.get("bytes") or "")
    if start.isdecimal() and size.isdecimal():
        return Source(name, RemoteFile(files, path, int(start), int(size)))
    found = next((one for one in _in_shard(files, path, shard) if one.name == url), None)
    if found is None:
        return Source(name, b"", f"{shard}: holds no {member!r}")
    return Source(name, found.audio, found.problem)


def _remote(
    url: str, include: Sequence[str], exclude: Sequence[str], given: "Files | None"
) -> Iterator[Source]:
    files, root = filesystem_of(url, given)
    url = url.rstrip("/")
    base = url.removesuffix(root) if given is None else ""
    try:
        info = files.info(root)
        paths = sorted(files.find(root)) if info["type"] == "directory" else [root]
    except OSError as error:
        yield Source(url, b"", f"{url}: cannot be read ({one_line(error)}); expected a sound")
        return
    any_found = False
    for path in paths:
        below = path.removeprefix(root).lstrip("/")
        known = PurePosixPath(path).suffix.lower() in SOUND_SUFFIXES or path.endswith(".tar")
        if below:
            hidden = any(part.startswith(".") for part in below.split("/"))
            wanted = matches(below, include) if include else known
            if hidden or not wanted or matches(below, exclude):
                continue
        any_found = True
        name = base + path
        if PurePosixPath(path).suffix in SHARDS:
            yield from _in_shard(files, path, name)
        else:
            yield Source(name, RemoteFile(files, path))
    if not any_found:
        yield Source(url, b"", f"the folder {url!r} holds no sound (see --include)")


def _in_shard(files: "AbstractFileSystem", path: str, name: str) -> Iterator[Source]:
    try:
        if path.endswith(".parquet"):
            for row in range(row_count(files, path)):
                yield Source(f"{name}#{row}", RemoteFile(files, path, row))
            return
        for member, start, size in tar_members(files, path):
            if PurePosixPath(member).suffix.lower() in SOUND_SUFFIXES:
                yield Source(f"{name}#{member}", RemoteFile(files, path, start, size))
    except EarwitnessError as error:
        yield Source(name, b"", str(error))
