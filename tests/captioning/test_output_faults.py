"""Outputs that cannot be written: devices, full disks, closed streams, and other runs."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from builders import noise, tiny_exported_folder
from heard import write_sound

from earwitness import audio
from earwitness.captioning.journal import Failures, Journal
from earwitness.captioning.locked import LockedFile
from earwitness.captioning.sinks import JournalledFile, Sidecars, SubtitleOutput
from earwitness.errors import AudioError, DataError

ONE = {"file": "a.wav", "caption": "rain", "score": 0.5, "model": "m", "seconds": 1.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    tiny_exported_folder(folder / "model")
    for number in range(3):
        write_sound(folder / f"clips/{number}.wav", noise(1.0, number))
    return folder


def shell(place: Path, line: str) -> tuple[int, list[str]]:
    command = f"{sys.executable} -m earwitness caption --model model {line}"
    done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-q clips > /dev/full", "standard output: cannot be written (No space left on device)"),
        ("-q clips -f json >&-", "standard output: cannot be written (Bad file descriptor)"),
        ("-q clips/0.wav -f srt >&-", "standard output: cannot be written (Bad file descriptor)"),
        ("-q - <&-", "standard input is closed; expected a sound"),
        ("-q --manifest - <&-", "standard input is closed; expected one path per line"),
        ("-q clips -f csv -o /dev/full", "/dev/full: is a device; expected a file name"),
    ],
)
def test_stream_that_cannot_be_used_is_one_sentence(place, line, sentence):
    code, said = shell(place, line)
    assert code == 1
    assert len(said) == 1
    assert said[0].startswith(f"earwitness: {sentence}")


def test_decoders_print_nothing_of_their_own(tmp_path, capfd):
    (tmp_path / "x.mp3").write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(AudioError, match="is not a sound"):
        audio.load(tmp_path / "x.mp3", 16_000)
    assert capfd.readouterr() == ("", "")


def test_closed_streams_lose_nothing_that_goes_to_a_file(place):
    assert shell(place, "clips -o closed.csv <&- >&- 2>&-") == (0, [])
    assert len((place / "closed.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_output_that_is_no_file_is_refused(tmp_path, kind):
    path = Path("/dev/null") if kind == "device" else tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    opens = [
        lambda: JournalledFile(path, "csv", "s", True),
        lambda: JournalledFile(path, "jsonl", "s", True),
        lambda: SubtitleOutput(path, "srt", None, True),
        lambda: Failures(path),
    ]
    for opened in opens:
        with pytest.raises(DataError, match=f"is a {kind}; expected a file name"):
            opened()


def test_overwrite_beside_a_running_job_is_refused_and_destroys_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    with closing(JournalledFile(path, "jsonl", "s", False)) as running:
        running.add([ONE])
        with pytest.raises(DataError, match="another run is writing to it"):
            JournalledFile(path, "jsonl", "s", True)
        running.add([ONE | {"file": "b.wav"}])
    with closing(JournalledFile(path, "jsonl", "s", False)) as later:
        assert later.done == {"a.wav", "b.wav"}
    with closing(JournalledFile(path, "jsonl", "s", True)) as fresh:
        assert fresh.done == set()


@pytest.fixture
def full(monkeypatch):
    """Makes disks full: half of what is appended is written, and then nothing."""

    def fill(file: LockedFile) -> None:
        real = file._file

        class Full:
            def write(self, data):
                if len(data) < 20:
                    raise OSError(28, "No space left on device")
                return real.write(data[: len(data) // 2])

            def __getattr__(self, name):
                return getattr(real, name)

        file._file = Full()

    return fill


def test_full_disk_keeps_the_journal_whole(tmp_path, full):
    path = tmp_path / "x.jsonl"
    journal = Journal(path, "s")
    journal.add([ONE])
    kept = path.read_bytes()
    full(journal._file)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        journal.add([ONE | {"file": "b.wav"}])
    journal.close()
    assert path.read_bytes() == kept
    with closing(Journal(path, "s")) as again:
        assert again.done == {"a.wav"}


@pytest.mark.parametrize("kind", ["csv", "json", "text", "parquet"])
def test_full_disk_at_the_end_is_one_sentence_and_keeps_the_journal(tmp_path, kind):
    code = (
        "import resource; from pathlib import Path; from earwitness.captioning import sinks\n"
        f"sink = sinks.JournalledFile(Path('x'), {kind!r}, 's', False)\n"
        "sink.add([dict(file='a', caption='c' * 5000, score=0.5, model='m', seconds=1.0)])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "try:\n    sink.finish()\n"
        "except sinks.DataError as error:\n    print(error)\n"
        "sink.close()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "x: cannot be written (File too large)\n"
    assert os.listdir(tmp_path) == ["x.journal.jsonl"]


def test_sidecar_that_cannot_be_written_is_the_error_of_its_sound(tmp_path):
    paths = {"a.wav": tmp_path / ("a" * 300), "b.wav": tmp_path / "b.txt"}
    sink = Sidecars(paths, "text", False)
    sink.add([ONE, ONE | {"file": "b.wav"}])
    assert list(sink.refused) == ["a.wav"]
    assert "File name too long" in sink.refused["a.wav"]
    assert paths["b.wav"].read_text() == "rain\n"


def test_list_of_failures_never_takes_the_place_of_another_file(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work\n")
    with pytest.raises(DataError, match="not a list of failures"):
        Failures(path)
    assert path.read_text() == "years of work\n"
    with closing(Failures(tmp_path / "f.jsonl")) as failures:
        failures.add("a.wav", "no sound")
    with closing(Failures(tmp_path / "f.jsonl")):
        pass
    assert not (tmp_path / "f.jsonl").exists()
