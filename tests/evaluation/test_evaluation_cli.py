"""`earwitness evaluate` and `earwitness metrics doctor` from the command line."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from earwitness.cli.evaluate import evaluate
from earwitness.cli.metrics import app as metrics_app
from earwitness.errors import EarwitnessError

FAST = ["--metrics", "bleu,rouge_l,cider_d", "--resamples", "100"]


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(evaluate)
    app.add_typer(metrics_app)
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    references = {
        "a.wav": ["a dog barks", "the dog is barking"],
        "b.wav": ["rain falls", "it is raining"],
        "c.wav": ["a man <b>speaks</b>", "a man talks"],
    }
    (tmp_path / "refs.json").write_text(json.dumps(references))
    for name, captions in {
        "good.csv": ["a dog barks", "rain falls hard", "a man speaks"],
        "seed2.csv": ["a dog barks", "rain", "a man talks"],
        "bad.csv": ["a cat", "wind blows", "music & <i>songs</i>"],
    }.items():
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "caption"])
            writer.writerows(zip(references, captions, strict=True))
    return tmp_path


class Page(HTMLParser):
    """Counts tags and collects text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_scores_go_to_stdout_and_progress_to_stderr(command, folder: Path):
    result = command("evaluate", folder / "good.csv", folder / "refs.json", *FAST)
    assert result.exit_code == 0
    assert "bleu_4" in result.stdout
    assert "fingerprint" in result.stdout
    assert "3 clips" in result.stderr


def test_json_holds_scores_intervals_and_fingerprint(command, folder: Path):
    out = folder / "scores.json"
    command("evaluate", folder / "good.csv", folder / "refs.json", *FAST, "--json", out)
    (report,) = json.loads(out.read_text())["reports"]
    score = report["corpus"]["rouge_l"]
    assert score["low"] <= score["value"] <= score["high"]
    assert score["sd"] is None
    assert report["fingerprint"]["text"].startswith("simple-1")
    assert report["fingerprint"]["metrics"].keys() == {"bleu", "rouge_l", "cider_d"}


def test_csv_has_one_row_per_clip_and_system(command, folder: Path):
    out = folder / "clips.csv"
    args = [folder / "good.csv", folder / "refs.json", "--against", folder / "bad.csv"]
    command("evaluate", *args, *FAST, "--csv", out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a.wav", "b.wav", "c.wav"] * 2
    assert float(rows[0]["rouge_l"]) == pytest.approx(1.0)


def test_comparison_shows_difference_and_p(command, folder: Path):
    out = folder / "scores.json"
    args = [folder / "good.csv", folder / "refs.json", "--against", folder / "bad.csv"]
    result = command("evaluate", *args, *FAST, "--json", out)
    assert "difference" in result.stdout
    (report,) = json.loads(out.read_text())["reports"]
    assert report["differences"]["rouge_l"]["difference"] > 0.5


def test_several_predictions_are_pooled(command, folder: Path):
    result = command(
        "evaluate", folder / "good.csv", folder / "seed2.csv", folder / "refs.json", *FAST
    )
    assert "2 runs pooled" in result.stdout
    assert "sd over seeds" in result.stdout


def test_cross_table_has_one_column_per_data_set(command, folder: Path):
    (folder / "other.json").write_text((folder / "refs.json").read_text())
    pairs = [f"{folder}/good.csv={folder}/refs.json", f"{folder}/bad.csv={folder}/other.json"]
    result = command("evaluate", "--cross", pairs[0], "--cross", pairs[1], *FAST)
    assert result.exit_code == 0
    header = result.stdout.splitlines()[0]
    assert "refs (3)" in header
    assert "other (3)" in header


def test_page_is_self_contained_escaped_and_plays_the_clips(command, folder: Path):
    (folder / "clips").mkdir()
    (folder / "clips" / "a.wav").write_bytes(b"RIFF")
    (folder / "clips" / "b big.wav").write_bytes(b"0" * 700_000)
    refs = json.loads((folder / "refs.json").read_text())
    refs["b big.wav"] = refs.pop("b.wav")
    (folder / "refs.json").write_text(json.dumps(refs))
    text = (folder / "good.csv").read_text().replace("b.wav", "b big.wav")
    (folder / "good.csv").write_text(text)
    out = folder / "report.html"
    args = [folder / "good.csv", folder / "refs.json", "--html", out]
    result = command("evaluate", *args, *FAST, "--audio", folder / "clips")
    assert result.exit_code == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "a man <b>speaks</b>" in page.words
    assert any(src.startswith("data:audio/wav;base64,UklGRg") for src in page.addresses)
    assert "clips/b%20big.wav" in page.addresses
    assert not any(src.startswith("http") for src in page.addresses)


def test_page_on_two_systems_shows_both_captions(command, folder: Path):
    out = folder / "report.html"
    args = [folder / "good.csv", folder / "refs.json", "--against", folder / "bad.csv"]
    command("evaluate", *args, *FAST, "--html", out)
    text = out.read_text(encoding="utf-8")
    assert "Captions on which the systems differ" in text
    assert "&lt;i&gt;songs&lt;/i&gt;" in text


def test_page_on_two_systems_draws_the_scores_of_both(command, folder: Path):
    out, scores = folder / "report.html", folder / "scores.json"
    args = [folder / "good.csv", folder / "refs.json", "--against", folder / "bad.csv"]
    command("evaluate", *args, *FAST, "--html", out, "--json", scores)
    text = out.read_text(encoding="utf-8")
    (report,) = json.loads(scores.read_text())["reports"]
    row = re.search(r'<th scope="row">rouge_l</th>.*?</tr>', text, re.DOTALL)
    assert row is not None
    dots = re.findall(r'class="track (\w+)".*?class="dot" style="left:([\d.]+)%', row[0])
    found = report["differences"]["rouge_l"]
    assert [(who, float(place) / 100) for who, place in dots] == [
        ("first", pytest.approx(found["first"], abs=1e-4)),
        ("second", pytest.approx(found["second"], abs=1e-4)),
    ]
    card = re.search(r'<article class="card">.*?</article>', text, re.DOTALL)
    assert card is not None
    assert card[0].count('class="meter first"') == card[0].count('class="meter second"') > 0


def test_metric_that_was_asked_for_and_cannot_run_gives_exit_one(command, folder: Path):
    args = [folder / "good.csv", folder / "refs.json", "--resamples", "10"]
    result = command("evaluate", *args, "--metrics", "rouge_l,fense")
    assert result.exit_code == 1
    assert "not run: fense" in result.stdout
    assert "rouge_l" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--cross pairs"),
        (["good.csv"], "REFERENCES is missing"),
        (["--cross", "good.csv"], "PREDICTIONS=REFERENCES"),
        (["--cross", "a=b", "--against", "bad.csv"], "omit --cross"),
    ],
)
def test_wrong_usage_exits_two(command, monkeypatch, folder: Path, arguments, message: str):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    result = command("evaluate", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "refs.json"], "nowhere.csv: no such file"),
        (["good.csv", "refs.json", "--metrics", "blue"], "did you mean 'bleu'"),
        (["good.csv", "refs.json", "--tokenizer", "x"], "tokenizer 'x'"),
        (
            ["good.csv", "refs.json", "--audio", "none", "--html", "r.html"],
            "no such folder; expected a folder of sounds",
        ),
        (["good.csv", "refs.json", "--json", "none/x.json"], "cannot be written"),
        (
            ["good.csv", "seed2.csv", "refs.json", "--against", "bad.csv"],
            "expected equal numbers of seeds, got 2 and 1",
        ),
    ],
)
def test_bad_input_is_one_sentence(command, monkeypatch, folder: Path, arguments, message: str):
    monkeypatch.chdir(folder)
    options = [] if "--metrics" in arguments else FAST
    result = command("evaluate", *arguments, *options)
    assert isinstance(result.exception, EarwitnessError)
    assert message in str(result.exception)


def test_doctor_says_what_is_missing_and_where_it_goes(command, tmp_path: Path):
    result = command("metrics", "doctor", "--corenlp", tmp_path, "--fluency", "echecker.ckpt")
    assert result.exit_code == 0
    assert "ok       METEOR jar" in result.stdout
    assert "missing  CoreNLP 3.6.0 jars (for spice, spider, spider_fl)" in result.stdout
    assert str(tmp_path) in result.stdout
    assert "pickle files are not loaded" in result.stdout


def test_doctor_speaks_json(command):
    result = command("metrics", "doctor", "--json", "--java", "/no/such/java")
    parts = {check["part"]: check for check in json.loads(result.stdout)}
    assert parts["Java"]["usable"] is False
    assert parts["SPICE jar"]["usable"] is True
