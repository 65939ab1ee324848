"""Java programs: PTB tokens, METEOR, SPICE, time limits, and messages on missing parts."""

import json
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from earwitness import evaluate
from earwitness.evaluation import spice as spice_module
from earwitness.evaluation.java import MetricNotRunError, find_java, java_runtime
from earwitness.evaluation.meteor import meteor, meteor_counts
from earwitness.evaluation.spice import CORENLP_JARS, spice
from earwitness.evaluation.text import normalize_captions

CANDIDATES = ["a dog barks", "rain falls on a roof", "", "men are speaking"]
REFERENCES = [
    ["a dog barks", "the dog is barking"],
    ["heavy rainfall on the roof"],
    ["birds sing"],
    ["a man talks", "two men talk"],
]


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def corenlp(tmp_path: Path) -> Path:
    folder = tmp_path / "corenlp"
    folder.mkdir()
    for name in CORENLP_JARS:
        (folder / name).touch()
    return folder


def test_meteor_corpus_score_is_the_formula_of_the_summed_counts(tmp_path: Path):
    first = [9, 9, 4, 3, 2, 2, 3, 3, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2, 6, 6]
    second = [12, 10, 7, 5, 1, 1, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4]
    lines = [" ".join(f"{count}.0" for count in counts) for counts in (first, second)]
    java = program(tmp_path / "java", f"read a; echo '{lines[0]}'; read b; echo '{lines[1]}'")
    result = evaluate(CANDIDATES[:2], REFERENCES[:2], metrics=["meteor"], java=java)
    expected = [0.2854709042299528, 0.11822660098522167]
    assert [clip["meteor"] for clip in result.per_clip] == pytest.approx(expected, abs=1e-15)
    summed = np.array([first, second], dtype=float).sum(axis=0, keepdims=True)
    assert result.corpus["meteor"].value == pytest.approx(meteor(summed)[0], abs=1e-15)


def test_ptb_tokens_keep_the_order_of_captions_with_newlines_and_empty_lines():
    texts = normalize_captions(
        ["A dog's bark,\nnear; (loud)", ""],
        [["It can't stop!", "Caf\u00e9 noise..."], ["x"]],
        "ptb",
    )
    assert texts.candidates[0].startswith("a dog 's bark near")
    assert texts.candidates[1] == ""
    assert texts.references == [["it ca n't stop", "caf\u00e9 noise"], ["x"]]


def test_java_version_is_read_from_the_program(tmp_path: Path):
    old = program(tmp_path / "java", "echo 'java version \"1.8.0_292\"' >&2")
    assert java_runtime(old).major == 8
    new = program(tmp_path / "java", "echo 'openjdk version \"21.0.1\" 2023' >&2")
    assert java_runtime(new).major == 21


def test_java_seven_is_refused(tmp_path: Path):
    old = program(tmp_path / "java", "echo 'java version \"1.7.0\"' >&2")
    with pytest.raises(MetricNotRunError, match="version 8 or newer"):
        java_runtime(old)


def test_java_home_comes_before_path(tmp_path: Path, monkeypatch):
    (tmp_path / "bin").mkdir()
    home = program(tmp_path / "bin" / "java", "exit 0")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == home


def test_no_java_lists_meteor_as_not_run_and_keeps_the_rest(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    result = evaluate(CANDIDATES, REFERENCES, resamples=10)
    assert "install a Java runtime" in result.not_run["meteor"]
    assert "meteor" not in result.corpus
    assert "meteor" not in result.per_clip[0]
    assert {"bleu_4", "rouge_l", "cider_d", "length"} <= result.corpus.keys()


def test_what_cannot_run_is_listed_with_its_reason(monkeypatch):
    monkeypatch.delenv("EARWITNESS_CORENLP", raising=False)
    wanted = ["spice", "spider_fl", "fense"]
    result = evaluate(CANDIDATES, REFERENCES, metrics=wanted, resamples=10)
    assert result.corpus.keys() == {"cider_d"}
    assert "stanford-corenlp-3.6.0.jar" in result.not_run["spice"]
    assert "spice, which was not run" in result.not_run["spider"]
    assert "--fluency" in result.not_run["fer"]
    assert "--sbert" in result.not_run["sbert_sim"]
    assert result.not_run.keys() >= {"spider_fl", "fense"}


def test_hanging_java_is_stopped_with_its_children(tmp_path: Path):
    mark = tmp_path / "mark"
    hanging = program(tmp_path / "java", f"(sleep 1.5; touch {mark}) & wait")
    start = time.monotonic()
    result = evaluate(CANDIDATES, REFERENCES, metrics=["meteor"], java=hanging, timeout=0.3)
    assert time.monotonic() - start < 1.2
    assert "longer than the limit of 0.3 s" in result.not_run["meteor"]
    time.sleep(1.7)
    assert not mark.exists()


def test_failing_java_gives_its_first_line(tmp_path: Path):
    failing = program(tmp_path / "java", "echo 'Error: no memory' >&2; exit 3")
    result = evaluate(CANDIDATES, REFERENCES, metrics=["meteor"], java=failing)
    assert "exit code 3: Error: no memory" in result.not_run["meteor"]


def test_unexpected_meteor_output_is_not_a_score(tmp_path: Path):
    odd = program(tmp_path / "java", "read line; echo 1.0 2.0; echo hello")
    result = evaluate(CANDIDATES, REFERENCES, metrics=["meteor"], java=odd)
    assert "not counts" in result.not_run["meteor"]


COUNTS = "9 9 4 3 2 2 3 3 0 0 0 0 1 1 0 0 0 0 0 0 2 6 6"


def test_meteor_is_started_once_and_again_if_it_ended(tmp_path: Path):
    log, end = tmp_path / "log", tmp_path / "end"
    java = program(
        tmp_path / "java",
        f"echo $$ >> {log}\nwhile read line; do if test -e {end}; then echo '{COUNTS}'; exit; fi\n"
        f"echo '{COUNTS}'; done",
    )
    first = meteor_counts(CANDIDATES, REFERENCES, java=java)
    assert np.array_equal(meteor_counts(CANDIDATES[:1], REFERENCES[:1], java=java), first[:1])
    (waiting,) = log.read_text().split()
    end.touch()
    meteor_counts(CANDIDATES[:1], REFERENCES[:1], java=java)
    while Path(f"/proc/{waiting}/stat").exists() and "Z" not in state(waiting):
        time.sleep(0.01)
    end.unlink()
    assert np.array_equal(meteor_counts(CANDIDATES, REFERENCES, java=java), first)
    assert len(log.read_text().split()) == 2


def state(process: str) -> str:
    """One letter: what a process is doing; Z has ended."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


SPICE_PROGRAM = """#!{python}
import json, sys
arguments = sys.argv[1:]
assert "-cache" not in arguments and "edu.anu.spice.SpiceScorer" in arguments
items = json.load(open(arguments[arguments.index("edu.anu.spice.SpiceScorer") + 1]))
found = [
    {{"image_id": i["image_id"], "scores": {{"All": {{"f": len(i["refs"]) / 10}}}}}} for i in items
]
json.dump(found, open(arguments[arguments.index("-out") + 1], "w"))
open({log!r}, "a").write(json.dumps([i["image_id"] for i in items]) + "\\n")
"""


def test_spice_goes_in_batches_without_cache_and_without_empty_captions(
    tmp_path: Path, corenlp: Path, monkeypatch
):
    log = tmp_path / "log"
    java = program(tmp_path / "java", "")
    java.write_text(SPICE_PROGRAM.format(python=sys.executable, log=str(log)))
    monkeypatch.setattr(spice_module, "BATCH", 2)
    scores = spice(CANDIDATES, REFERENCES, corenlp=corenlp, java=java)
    assert scores.tolist() == [0.2, 0.1, 0.0, 0.2]
    assert [json.loads(line) for line in log.read_text().splitlines()] == [[0, 1], [3]]
    result = evaluate(CANDIDATES, REFERENCES, metrics=["spider"], corenlp=corenlp, java=java)
    for clip in result.per_clip:
        assert clip["spider"] == (clip["cider_d"] + clip["spice"]) / 2


def test_spice_over_its_limit_names_the_batch(tmp_path: Path, corenlp: Path):
    hanging = program(tmp_path / "java", "sleep 60")
    result = evaluate(
        CANDIDATES, REFERENCES, metrics=["spice"], corenlp=corenlp, java=hanging, timeout=0.3
    )
    assert result.not_run["spice"].startswith("clips 1 to 3: Java took longer")


def test_spice_without_its_jars_says_where_they_go(tmp_path: Path):
    with pytest.raises(MetricNotRunError, match=r"-models\.jar not found in .*--corenlp"):
        spice(CANDIDATES, REFERENCES, corenlp=tmp_path)
