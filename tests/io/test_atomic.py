"""Files appear whole or not at all, through links, and pass into devices as they are."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from earwitness.errors import ConfigError, DataError
from earwitness.io.atomic import replacing, replacing_path, write_text
from earwitness.io.batches import batched
from earwitness.io.digests import sha256_of


def test_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def stop_halfway() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    def stop_halfway_by_path() -> None:
        with replacing_path(path) as draft:
            draft.write_text("half")
            raise RuntimeError

    for write in (stop_halfway, stop_halfway_by_path):
        with pytest.raises(RuntimeError):
            write()
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
        assert path.read_text() == "old"


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_folder_is_made_or_its_absence_is_one_sentence(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "x")
    assert (tmp_path / "new" / "a.txt").read_text() == "x"
    with pytest.raises(ConfigError, match=r"gone/a\.txt: cannot be written"):
        write_text(tmp_path / "gone" / "a.txt", "x", make_folder=False)
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "new", "x", DataError)


def test_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert found == [b"through"]
    assert pipe.is_fifo()


def test_full_device_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="/dev/full: cannot be written"):
        write_text(Path("/dev/full"), "x" * 100_000)


def test_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'ä' * 125}.txt"
    write_text(path, "x")
    assert path.read_text() == "x"


def test_names_that_are_not_utf8_get_their_bytes_back(tmp_path: Path) -> None:
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9"


def test_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    contents = os.urandom((1 << 20) + 7)
    (tmp_path / "a").write_bytes(contents)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(contents).hexdigest()
    assert sha256_of(str(tmp_path / "a")) == sha256_of(tmp_path / "a")


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (6, [3, 3]), (7, [3, 3, 1])])
def test_batches_are_full_but_for_the_last(count: int, sizes: list[int]) -> None:
    found = list(batched(range(count), 3))
    assert [len(batch) for batch in found] == sizes
    assert [item for batch in found for item in batch] == list(range(count))
