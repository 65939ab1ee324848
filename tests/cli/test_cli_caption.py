"""`earwitness caption` as its users meet it: arguments in; output, files and exit codes out."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import noise, tiny_exported_folder, tiny_model_folder
from heard import TONES, knowing_captioner, silence, tone, write_sound
from muxing import Track, mux

from earwitness.captioning.subtitles import parse
from earwitness.cli import app, caption_progress
from earwitness.cli.caption import caption
from earwitness.runtime import RuntimeCaptioner
from earwitness.system.captioner import TorchCaptioner


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    return str(tiny_model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, model):
    """Runs `earwitness caption` where tones are known: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TorchCaptioner, "load", lambda *_: knowing_captioner())
    only = type(app)(pretty_exceptions_enable=False)
    only.command()(caption)

    def run_caption(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            only(["--model", model, *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_caption


@pytest.fixture
def clips(tmp_path) -> Path:
    """Four tones, one of them in a folder below, and a file that is no sound."""
    for number, frequency in enumerate(TONES):
        name = f"clips/{'sub/' if number == 3 else ''}{number}.wav"
        write_sound(tmp_path / name, tone(frequency, 1.0 + number))
    (tmp_path / "clips" / "bad.wav").write_text("hello")
    return tmp_path / "clips"


def read(name: str) -> str:
    return Path(name).read_text()


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


CAPTIONS = [
    ("clips/0.wav", "a dog barks"),
    ("clips/1.wav", "rain falls"),
    ("clips/2.wav", "a siren wails"),
    ("clips/sub/3.wav", "birds chirp"),
]


def test_one_file_prints_its_caption_alone(run, clips):
    assert run("clips/0.wav") == (0, "a dog barks\n", "")


def test_several_files_print_file_and_caption(run, clips):
    code, out, err = run("clips/0.wav", "clips/1.wav", "-q")
    assert (code, err) == (0, "")
    assert out == "clips/0.wav\ta dog barks\nclips/1.wav\train falls\n"


def test_folder_goes_on_past_a_bad_file_and_exits_1(run, clips):
    code, out, err = run("clips")
    assert code == 1
    assert [tuple(line.split("\t")) for line in out.splitlines()] == CAPTIONS
    assert "earwitness: 'clips/bad.wav' is not a sound in a known format; expected" in err
    assert "1 of 5 failed" in err


def test_json_is_one_object_a_line(run, clips):
    _, out, _ = run("clips", "--json", "--exclude", "bad*")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["file"], one["caption"]) for one in found] == CAPTIONS
    assert all(one["model"] == "tiny" and 0 <= one["score"] <= 1 for one in found)


def test_sound_on_standard_input(run, clips, monkeypatch):
    content = io.BytesIO((clips / "1.wav").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert run("-") == (0, "rain falls\n", "")


def test_paths_on_standard_input(run, clips, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("clips/1.wav\nclips/0.wav\n"))
    _, out, _ = run("--manifest", "-")
    assert out == "clips/1.wav\train falls\nclips/0.wav\ta dog barks\n"


def test_long_file_prints_a_line_for_each_stretch(run, tmp_path):
    write_sound(tmp_path / "long.wav", tone(200, 40), silence(10))
    code, out, _ = run("long.wav")
    assert code == 0
    assert out == (
        "00:00:00.0 - 00:00:40.0\ta dog barks\n00:00:40.0 - 00:00:50.0\tno distinct sound\n"
    )


def test_json_format_of_a_long_file_is_a_list_of_segments(run, tmp_path):
    write_sound(tmp_path / "x.wav", tone(200, 20), tone(700, 20))
    _, out, _ = run("x.wav", "-f", "json")
    found = [(row["start"], row["end"], row["caption"]) for row in json.loads(out)]
    assert found == [(0.0, 20.0, "a dog barks"), (20.0, 40.0, "rain falls")]


@pytest.mark.parametrize("ending", ["srt", "vtt"])
def test_subtitles_of_a_long_file(run, tmp_path, ending):
    write_sound(tmp_path / "x.wav", tone(200, 10), tone(700, 10))
    assert run("x.wav", "-o", f"x.{ending}")[0] == 0
    cues = parse((tmp_path / f"x.{ending}").read_text()).cues
    assert [(c.start, c.end, c.text) for c in cues] == [
        (0.0, 10.0, "a dog barks"),
        (10.0, 20.0, "rain falls"),
    ]
    code, _, err = run("x.wav", "-o", f"x.{ending}")
    assert (code, "exists" in err) == (1, True)


def test_sounds_between_speech(run, tmp_path):
    write_sound(tmp_path / "x.wav", tone(200, 10), tone(700, 10))
    (tmp_path / "speech.srt").write_bytes(
        b"1\r\n00:00:00,000 --> 00:00:06,000\r\nD\xe9j\xe0 vu.\r\n\r\n"
    )
    code, out, _ = run("x.wav", "--merge", "speech.srt")
    assert code == 0
    assert [c.text for c in parse(out).cues] == [
        "D\u00e9j\u00e0 vu.",
        "[dog barks]",
        "[rain falls]",
    ]


def test_video_is_captioned_by_its_sound_track(run, tmp_path):
    write_sound(tmp_path / "x.wav", tone(700, 3))
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=64x64:d=3", "-i", "x.wav"]
    try:
        subprocess.run([*command, "-shortest", "x.mp4"], check=True, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("needs the program ffmpeg")
    assert run("x.mp4") == (0, "rain falls\n", "")


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_repeated_command_does_only_what_is_missing(run, clips, ending):
    output = f"out/captions.{ending}"
    code, out, err = run("clips", "-o", output)
    assert (code, out) == (1, "")
    assert f"see {output}.failed.jsonl" in err
    failed = [json.loads(line) for line in read(f"{output}.failed.jsonl").splitlines()]
    assert [one["file"] for one in failed] == ["clips/bad.wav"]
    first = Path(output).read_bytes()
    write_sound(clips / "bad.wav", tone(200, 1))
    code, _, err = run("clips", "-o", output)
    assert code == 0
    assert "4 of 5 already captioned; continuing with 1" in err
    assert not Path(f"{output}.failed.jsonl").exists()
    if ending not in ("parquet", "json"):
        assert Path(output).read_bytes().startswith(first)
        assert Path(output).read_text().count("bad.wav") == 1
    last = Path(output).read_bytes()
    code, _, err = run("clips", "-o", output)
    assert (code, Path(output).read_bytes()) == (0, last)
    assert "5 of 5 already captioned; nothing left to do" in err


def test_results_of_other_settings_are_not_mixed(run, clips):
    run("clips", "-o", "c.jsonl")
    code, _, err = run("clips", "-o", "c.jsonl", "--beam", "2")
    assert (code, "another model or other settings" in err) == (1, True)
    assert run("clips/0.wav", "-o", "c.jsonl", "--beam", "2", "--overwrite")[0] == 0
    assert len(Path("c.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl", "mine.txt"])
def test_file_of_the_user_is_never_overwritten(run, clips, name):
    Path(name).write_text("mine\n")
    code, _, err = run("clips", "-o", name)
    assert (code, Path(name).read_text()) == (1, "mine\n")
    assert "choose another --output, or --overwrite" in err


def test_shards_share_the_work_and_one_name(run, clips):
    for i in (1, 2):
        assert run("clips", "-o", "c.csv", "--shard", f"{i}/2", "--exclude", "bad*")[0] == 0
    found = []
    for name in ("c-1-of-2.csv", "c-2-of-2.csv"):
        found += [row["file"] for row in csv_rows(read(name))]
    assert sorted(found) == [name for name, _ in CAPTIONS]


def test_sidecars_beside_and_below(run, clips):
    assert run("clips", "--sidecar", "txt", "--exclude", "bad*")[0] == 0
    assert (clips / "sub" / "3.txt").read_text() == "birds chirp\n"
    code, _, err = run("clips", "--sidecar", "txt", "--exclude", "bad*")
    assert "4 of 4 already captioned" in err
    assert run("clips", "--sidecar", "srt", "-o", "out")[0] == 1
    assert parse(Path("out/sub/3.srt").read_text()).cues[0].text == "birds chirp"
    assert Path("out/failed.jsonl").exists()


def test_n_best_with_scores(run, tmp_path):
    write_sound(tmp_path / "x.wav", tone(200, 2) + tone(700, 2, 0.1))
    _, out, _ = run("x.wav", "-n", "2")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["a dog barks", "rain falls"]
    assert [float(line.split("\t")[0]) for line in out.splitlines()] == [0.9, 0.1]


def test_low_score_and_silence_are_no_distinct_sound(run, tmp_path):
    write_sound(tmp_path / "noise.wav", noise(2))
    write_sound(tmp_path / "still.wav", silence(2))
    _, out, _ = run("noise.wav", "still.wav", "--json", "--min-score", "0.5")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["caption"], one["gate"]) for one in found] == [
        ("no distinct sound", "low score"),
        ("no distinct sound", "silence"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give files or --manifest"),
        (("clips", "--manifest", "x.csv"), "give files or --manifest"),
        (("clips", "--column", "x"), "needs --manifest"),
        (("clips", "--json", "-f", "csv"), "means --format jsonl"),
        (("clips", "--seed", "1"), "needs --sample"),
        (("clips", "--top-p", "0.5"), "needs --sample"),
        (("clips", "--sample", "--beam", "3"), "exclude each other"),
        (("clips", "--beam", "0"), "greater than or equal to 1"),
        (("clips", "--format", "pdf"), "'pdf' is not one of"),
        (("clips", "--precision", "int4"), "'int4' is not one of"),
        (("-", "--sidecar", "txt"), "does not work with standard input"),
        (("clips", "--merge", "s.srt", "-f", "csv"), "writes only srt or vtt"),
    ],
)
def test_wrong_usage_exits_2(run, clips, arguments, sentence):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("clips", "-o", "x.xls"), "x.xls: no format has the extension '.xls'; expected .txt,"),
        (("clips", "-o", "clips", "-f", "csv"), "clips: is a folder; expected a file name"),
        (("clips", "-f", "parquet"), "parquet needs a file; give one with --output"),
        (
            ("clips", "-f", "srt"),
            "srt holds the subtitles of one sound, got 5; --sidecar srt",
        ),
        (("clips", "--shard", "9/4"), "--shard 9/4: expected i/n with i from 1 to n"),
        (("clips", "--exclude", "*"), "holds no sound with a known extension"),
        (("clips/0.wav", "--exclude", "*"), "--exclude leaves none of clips/0.wav"),
        (("clips/0.wav", "--device", "abacus"), "--device abacus: not on this machine; expected"),
        (("clips/0.wav", "--device", "cuda:7"), "--device cuda:7: not on this machine; expected"),
        (("clips/0.wav", "--window", "5", "--hop", "9"), "expected a hop from 0.01 s"),
        (("clips/0.wav", "--window", "0"), "expected a window of 0.1 to 3600 s, got 0 s"),
        (("clips/0.wav", "--model", "nowhere"), "nowhere: no such model folder; expected"),
        (("clips/0.wav", "--merge", "no.srt"), "no.srt: cannot be read"),
        (("clips/0.wav", "--merge", "clips/bad.wav"), "expected SRT or WebVTT"),
        (("clips/0.wav", "-o", "clips/0.wav/x.csv"), "cannot be written"),
        (("clips/0.wav", "--sample", "--temperature", "-1"), "key 'temperature'"),
        (("missing.wav",), "'missing.wav' does not exist; expected a sound file in wav, flac,"),
        (("no/*.wav",), "no file matches 'no/*.wav'"),
        (("no/",), "the folder 'no/' does not exist"),
        (("no/x.wav",), "'no/x.wav' does not exist: there is no folder 'no'"),
        (("https://a.org/x.wav",), "'https://a.org/x.wav' is a URL; expected a file on this"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_1(run, clips, arguments, sentence):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert err.startswith("earwitness: ")


def test_a_dash_as_output_is_standard_output(run, clips):
    printed = run("clips/0.wav", "--format", "csv")
    assert printed[0] == 0
    assert "clips/0.wav" in printed[1]
    assert run("clips/0.wav", "--format", "csv", "-o", "-")[:2] == printed[:2]
    assert not Path("-").exists()


def test_help_is_plain_and_quick():
    begun = time.process_time()
    command = [sys.executable, "-X", "importtime", "-m", "earwitness", "caption", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "[dog barks]" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " numpy"))]
    assert time.process_time() - begun < 5


def test_kill_in_the_middle_loses_at_most_the_batch_in_flight(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = str(tiny_exported_folder(tmp_path / "model"))
    names = [f"clips/{i:03}.wav" for i in range(60)]
    for i, name in enumerate(names):
        write_sound(tmp_path / name, noise(1.0 + i % 3, i))
    job = [sys.executable, "-m", "earwitness", "caption", "clips", "--model", model]
    job += ["-o", "c.csv", "--batch-size", "2"]
    journal = tmp_path / "c.csv.journal.jsonl"
    first = subprocess.Popen(job, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while first.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = journal.read_bytes()
    done = kept.count(b"\n")
    assert 6 <= done < len(names)
    assert not (tmp_path / "c.csv").exists()
    with journal.open("ab") as file:
        file.write(b'{"file": "clips/059.wav", "capti')
    second = subprocess.run(job, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{done} of 60 already captioned; continuing with {60 - done}" in second.stderr
    assert journal.read_bytes().startswith(kept)
    rows = csv_rows((tmp_path / "c.csv").read_text())
    assert [row["file"] for row in rows] == names
    unbroken = RuntimeCaptioner.load(model).caption_batch([str(tmp_path / name) for name in names])
    assert [row["caption"] for row in rows] == [one.text for one in unbroken]


def test_interrupt_keeps_what_is_done_and_says_how_to_go_on(run, tmp_path, monkeypatch):
    for i in range(9):
        write_sound(tmp_path / f"clips/{i}.wav", tone(200, 1.0))
    captioner = knowing_captioner()
    whole = captioner.caption_waveforms

    def interrupted(waveforms, decoding=None):
        if len(captioner.batches) == 2:
            raise KeyboardInterrupt
        return whole(waveforms, decoding)

    captioner.caption_waveforms = interrupted
    with monkeypatch.context() as patch:
        patch.setattr(TorchCaptioner, "load", lambda *_: captioner)
        code, _, err = run("clips", "-o", "c.jsonl", "--batch-size", "3")
    assert code == 130
    assert (
        "stopped with 6 of 9 done; if the job writes a file, the same command continues it" in err
    )
    assert len(read("c.jsonl").splitlines()) == 6
    assert run("clips", "-o", "c.jsonl")[0] == 0
    assert len(read("c.jsonl").splitlines()) == 9


def test_track_is_chosen_and_several_are_named(run, tmp_path) -> None:
    tracks = [
        Track(tone(hertz, 2.0), 16000, language=language)
        for hertz, language in zip(TONES, ("ger", "eng"), strict=False)
    ]
    film = mux(tmp_path / "film.mkv", *tracks)
    code, out, err = run("film.mkv")
    assert (code, out) == (0, "a dog barks\n")
    assert "track 1 of 2 audio tracks (1 ger, 2 eng)" in " ".join(err.split())
    for track in ("2", "eng"):
        code, out, err = run(str(film), "--track", track, "-q")
        assert (code, out) == (0, "rain falls\n")
    code, _, err = run("film.mkv", "--track", "fre", "-q")
    assert code == 1
    assert "has no audio track 'fre'; expected 1 to 2 (1 ger, 2 eng)" in " ".join(err.split())


def test_progress_of_one_long_file_is_in_seconds_of_sound(run, monkeypatch, tmp_path):
    monkeypatch.setattr(caption_progress, "_EVERY_SECONDS", 0.0)
    write_sound(tmp_path / "long.wav", silence(75.0))
    counts = re.findall(r"(\d:\d\d) of 1:15 of sound", run("long.wav", "-o", "long.json")[2])
    assert len(counts) >= 7
    assert counts == sorted(counts)
    assert counts[-1] == "1:15"
    write_sound(tmp_path / "short.wav", silence(5.0))
    assert "0/1 files" in run("short.wav", "-o", "short.json")[2]
