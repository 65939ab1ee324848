"""Output files told apart by their endings."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.cli.outputs import by_ending
from earwitness.errors import ConfigError


def test_each_ending_has_its_path() -> None:
    found = by_ending([Path("a/scores.JSON"), Path("b.html")], (".json", ".html"))
    assert found == {".json": Path("a/scores.JSON"), ".html": Path("b.html")}
    assert by_ending([], (".json",)) == {}


def test_unknown_and_repeated_endings_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"--output x.xls: expected a file ending in .json, .html"
    ):
        by_ending([Path("x.xls")], (".json", ".html"))
    with pytest.raises(ConfigError, match=r"--output b.json: a.json has the same format"):
        by_ending([Path("a.json"), Path("b.json")], (".json", ".html"))


def test_evaluate_writes_the_same_by_output_as_by_the_older_names(tmp_path: Path) -> None:
    predictions, references = tmp_path / "p.csv", tmp_path / "r.csv"
    predictions.write_text("file,caption\na.wav,a dog barks\nb.wav,rain falls\n")
    references.write_text("file,caption_1\na.wav,a dog barks loudly\nb.wav,rain is falling\n")
    common = [
        "evaluate",
        str(predictions),
        str(references),
        "--metrics",
        "bleu",
        "--resamples",
        "0",
    ]
    for suffix in ("json", "csv"):
        new, old = tmp_path / f"new.{suffix}", tmp_path / f"old.{suffix}"
        for option, path in (("-o", new), (f"--{suffix}", old)):
            result = CliRunner().invoke(app, [*common, option, str(path)])
            assert result.exit_code == 0, result.output
        assert new.read_text() == old.read_text() != ""
