"""`earwitness reproduce`: the plan, what is checked before anything runs, and whole tiny runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from builders import tiny_model_folder
from hub_parts import publish
from manifests import write_manifest
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.data.manifest import Clip, read_manifest
from earwitness.data.prepare.output import write_rows
from earwitness.errors import ConfigError, TrainingError
from earwitness.models.hub import HubName
from earwitness.training.source import Opening
from earwitness.training.sources import ManifestSource
from earwitness_lab.reproduce.checks import (
    cached,
    card_checks,
    check_all,
    check_manifest,
    check_weights,
    expected_clips,
    first_missing,
    stage_clips,
)
from earwitness_lab.reproduce.decode import clips_to_caption, decode
from earwitness_lab.reproduce.gpu import card_need, encoder_bytes
from earwitness_lab.reproduce.plan import launch, make_plan, run_stages
from earwitness_lab.reproduce.table import LAMB_TABLE_1, score_rows, tables

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def plan(tmp_path, system="lamb", size="paper", **changes):
    given = {"data": tmp_path / "data", "runs": tmp_path / "runs", **changes}
    if size == "tiny":
        given.pop("data")
    return make_plan(system, size, recipes=RECIPES, **given)


def manifest(path, clips=2, captions=1, sounds=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(clips):
        sound = path.parent / f"{path.stem}-{number}.wav"
        if sounds:
            soundfile.write(sound, np.zeros(1600, np.float32), 16000)
        texts = tuple(f"caption {number} {c}" for c in range(captions))
        rows.append(Clip(sound.name, sound, texts))
    write_manifest(path.with_suffix(".jsonl"), rows)
    path.with_suffix(".jsonl").rename(path)
    return path


def finish(stage, epoch=None):
    (stage.run / "best").mkdir(parents=True)
    (stage.run / "checkpoint").mkdir()
    done = {"epoch": stage.recipe.fit.epochs if epoch is None else epoch}
    (stage.run / "checkpoint" / "progress.json").write_text(json.dumps(done))


def test_plan_moves_the_recipes_folders(tmp_path):
    pretrain, audiocaps, clotho = plan(tmp_path).stages
    assert pretrain.recipe.source.train_files[2] == tmp_path / "data/manifests/wavcaps.csv"
    assert str(pretrain.recipe.encoder) == "mispeech/ced-base"
    for stage in (audiocaps, clotho):
        assert stage.recipe.init == tmp_path / "runs" / "lamb_pretrain" / "best"


@pytest.mark.parametrize("system", ["lamb", "link"])
@pytest.mark.parametrize("size", ["paper", "pocket", "tiny"])
def test_every_stage_starts_from_one_before_it(tmp_path, system, size):
    made = plan(tmp_path, system, size)
    for number, stage in enumerate(made.stages):
        for key in ("init", "encoder", "decoder", "bridge", "text"):
            weights = getattr(stage.recipe, key, None)
            if isinstance(weights, Path) and tmp_path / "runs" in weights.parents:
                if tmp_path / "runs" / "data" in weights.parents:
                    continue
                assert made.maker(weights) in made.stages[:number]
    assert {row.stage for row in made.rows} <= {stage.name for stage in made.stages}


def test_the_pocket_captioner_starts_at_its_language_model_and_encoder(tmp_path):
    names = [stage.name for stage in plan(tmp_path, size="pocket").stages]
    assert names[-1] == "pocket_lamb"
    assert {"pocket_lm", "pocket_encoder_random"} < set(names)


def test_unknown_stage_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"'lamb_audiocap'.*lamb_audiocaps.*evaluate"):
        plan(tmp_path, stages=["lamb_audiocap"])


def test_tiny_takes_no_data(tmp_path):
    with pytest.raises(ConfigError, match="makes its own sounds"):
        make_plan("lamb", "tiny", recipes=RECIPES, data=tmp_path)


def test_no_recipes_there(tmp_path):
    with pytest.raises(ConfigError, match="no recipes there"):
        make_plan("lamb", recipes=tmp_path)


def test_a_stage_is_finished_at_its_last_epoch_only(tmp_path):
    stage, other, _ = plan(tmp_path).stages
    finish(stage)
    finish(other, epoch=29)
    assert (stage.finished, other.finished) == (True, False)
    assert other.started


@pytest.mark.slow
def test_a_stage_that_stops_is_told_with_its_exit_code(tmp_path):
    made = plan(tmp_path, stages=["lamb_pretrain"])
    said = []
    with pytest.raises(TrainingError, match="'lamb_pretrain' stopped with exit code 1"):
        run_stages(made, said.append)
    assert said[0].startswith("training lamb_pretrain")


def test_finished_stages_are_skipped(tmp_path):
    made = plan(tmp_path, stages=["lamb_pretrain"])
    finish(made.stages[0])
    said = []
    run_stages(made, said.append)
    assert len(said) == 1
    assert said[0].startswith("done")


def test_manifest_that_is_missing_says_how_to_make_it(tmp_path):
    check = check_manifest(tmp_path / "clotho.train.csv")
    assert check.state == "missing"
    assert f"earwitness prepare clotho ... -o {tmp_path}/clotho.csv" in check.detail


def test_manifest_counts_stand_beside_the_published_ones(tmp_path):
    rows = [
        {"id": f"{n}", "audio": f"{n}.wav", "split": "test", "source": "clotho",
         "recording": f"{n}", "seconds": 1.0, "captions": ["a", "b"]}
        for n in range(3)
    ]  # fmt: skip
    path = tmp_path / "clotho.test.csv"
    write_rows(path, rows)
    for n in range(3):
        (tmp_path / f"{n}.wav").touch()
    check = check_manifest(path)
    assert check.state == "note"
    assert check.detail.startswith("3 clips, 6 captions; published Clotho 2.1 1,045; fewer")
    (tmp_path / "1.wav").unlink()
    assert check_manifest(path).state == "missing"
    assert "'1'" in check_manifest(path).detail


@pytest.mark.parametrize(
    ("name", "clips"),
    [
        ("audiocaps.train", {"AudioCaps 1.0": 49838, "LAMB": 48595}),
        ("clotho.train", {"Clotho 2.1": 3839}),
        ("clotho.test", {"Clotho 2.1": 1045}),
        ("wavcaps", {"WavCaps": 403050}),
        ("mine", {}),
    ],
)
def test_published_counts(name, clips):
    assert expected_clips(Path(f"{name}.csv")) == clips


def test_items_of_an_epoch(tmp_path):
    pretrain, audiocaps, _ = plan(tmp_path).stages
    assert stage_clips(pretrain) == 48595 + 3839 + 403050
    assert stage_clips(audiocaps) == 48595


def test_wavcaps_without_a_black_list_is_told(tmp_path):
    made = plan(tmp_path, stages=["lamb_pretrain"])
    folder = tmp_path / "data" / "manifests"
    folder.mkdir(parents=True)
    for excluded, state in (({}, "note"), ({"test.csv": 975}, "ok")):
        report = {"excluded_by_file": excluded}
        (folder / "wavcaps.csv.report.json").write_text(json.dumps(report))
        told = [c for c in check_all(made) if "test sets" in c.detail or "left out" in c.detail]
        assert [check.state for check in told] == [state]


def weights_folder(tmp_path, parts=("model-1.safetensors", "model-2.safetensors")):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    index = {"weight_map": {f"w{n}": part for n, part in enumerate(parts)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for part in parts:
        (folder / part).write_bytes(b"0" * 1000)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_weights_in_the_cache_are_found_whole_or_not_at_all(tmp_path, cache):
    folder = weights_folder(tmp_path)
    publish(cache, "ada/whole", folder)
    assert cached(HubName("ada/whole", None)) is not None
    assert check_weights(Path("ada/whole")).state == "ok"
    (folder / "model-2.safetensors").unlink()
    publish(cache, "ada/half", folder)
    assert cached(HubName("ada/half", None)) is None


def test_gated_weights_offline_say_what_to_do(cache):
    check = check_weights(Path("meta-llama/Llama-2-7b-chat-hf"), download=True)
    assert check.state == "missing"
    check = check_weights(Path("meta-llama/Llama-2-7b-chat-hf"))
    for part in ("about 13.5 GB", "HF_HUB_OFFLINE", "accept the license", "--download"):
        assert part in check.detail


def test_weights_of_a_stage_that_is_not_asked_for_are_missing(tmp_path, cache):
    made = plan(tmp_path, stages=["lamb_audiocaps"])
    checks = [c for c in check_all(made) if "leaves it there" in c.detail]
    assert "'lamb_pretrain'" in checks[0].detail
    finish(made.stages[0])
    assert not [c for c in check_all(made) if "leaves it there" in c.detail]


def test_memory_of_the_papers_stages(tmp_path):
    pretrain, audiocaps, _ = plan(tmp_path).stages
    weights = 2 * 6_738_415_616 + 4 * 86_000_000
    for stage in (pretrain, audiocaps):
        need = card_need(stage.recipe)
        assert weights < need.bytes < 3 * weights
    assert card_need(pretrain.recipe).bytes > card_need(audiocaps.recipe).bytes
    assert card_need(plan(tmp_path, "link").stages[0].recipe) is None
    assert encoder_bytes(30.0) == pytest.approx(3 * encoder_bytes(10.0))


def test_card_that_is_too_small_says_how_many_clips_fit(tmp_path):
    stages = plan(tmp_path).stages[:1]
    assert [c.state for c in card_checks(stages, card=80e9)] == ["ok"]
    (small,) = card_checks(stages, card=20e9)
    assert (small.state, "clips fit" in small.detail) == ("missing", True)
    (none,) = card_checks(stages, card=0.0)
    assert "no CUDA GPU" in none.detail


def test_several_manifests_are_one_training_set(tmp_path):
    one, five = manifest(tmp_path / "one.jsonl", 3), manifest(tmp_path / "five.jsonl", 2, 5)
    source = ManifestSource(kind="manifest", train=(one, five), validation=one)
    splits = source.open(Opening(None, 16000, tmp_path, 0))
    assert len(splits.train) == 5
    assert len(splits.captions) == 3 + 10
    heard = {splits.train[(4, epoch)]["text"] for epoch in range(60)}
    assert heard == {f"caption 1 {c}" for c in range(5)}
    assert {splits.train[(0, epoch)]["text"] for epoch in range(5)} == {"caption 0 0"}
    assert [splits.train[(i, 0)]["clip"] for i in range(5)] == [0, 1, 2, 3, 4]


def test_table_holds_the_papers_rows_and_dashes_for_ours(tmp_path):
    made = plan(tmp_path)
    text = tables(made, {})
    assert "| LAMB (paper) | AudioCaps | 27.1 | 91.1 | 19.7 | 55.4 | 55.3 | 67.7 |" in text
    assert "| LAMB (here) | Clotho | - | - | - | - | - | - |" in text
    assert LAMB_TABLE_1["LAMB (paper)", "Clotho"] == (19.8, 52.3, 14.7, 33.4, 33.1, 53.4)
    link = tables(plan(tmp_path, "link"), {})
    assert "| Diffusion-Link (paper) | zero-shot | - | - | - | - | - | - | up to +52.5 % |" in link
    assert "| Diffusion-Link (paper) | supervised | - | - | - | - | - | - | up to +7.5 % |" in link


def test_test_clips_need_captions(tmp_path):
    (tmp_path / "x.csv").write_text("audio\na.wav\n")
    with pytest.raises(Exception, match=r"clip 'a\.wav' has no caption"):
        clips_to_caption(tmp_path / "x.csv")


def test_dry_run_trains_nothing_and_a_real_one_stops_at_what_is_missing(tmp_path, cache):
    words = ["reproduce", "lamb", "--recipes", str(RECIPES), "--runs", str(tmp_path / "r")]
    words += ["--data", str(tmp_path)]
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "stage    lamb_pretrain [to do]" in dry.output
    assert "missing  mispeech/ced-base" in dry.output
    assert not (tmp_path / "r").exists()
    real = CliRunner().invoke(app, words)
    assert real.exit_code == 1
    assert str(real.exception).startswith("nothing was run: ")


def test_nothing_missing_stops_nothing(tmp_path):
    assert first_missing([c for c in check_all(plan(tmp_path, size="tiny"))]) is None


@pytest.mark.slow
@pytest.mark.parametrize("system", ["lamb", "link"])
def test_tiny_reproduction_runs_from_nothing_to_the_table(tmp_path, system):
    made = plan(tmp_path, system, "tiny")
    run_stages(made, lambda _: None)
    scores = score_rows(made, lambda _: None)
    assert set(scores) == {row.label for row in made.rows}
    for score in scores.values():
        assert len(score.ids) == len(read_manifest(made.rows[0].test))
        assert score.corpus["cider_d"].value >= 0
    assert all(stage.finished for stage in made.stages)
    said = []
    run_stages(made, said.append)
    assert all(line.startswith("done") for line in said)


@pytest.mark.parametrize("system", ["lamb", "link"])
def test_folders_of_a_tiny_run_are_named_once_from_where_one_stands(system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage in make_plan(system, "tiny", recipes=RECIPES).stages:
        assert "reproduce-tiny/reproduce-tiny" not in " ".join(stage.overrides)


def test_several_processes_share_the_batch_of_a_recipe(tmp_path):
    alone, shared = plan(tmp_path), plan(tmp_path, processes=4)
    for one, four in zip(alone.stages, shared.stages, strict=True):
        assert four.recipe.fit.batch_size * 4 == one.recipe.fit.batch_size
        assert four.command[:2] == ["torchrun", "--standalone"]
        assert four.command[2:6] == ["--nproc-per-node=4", "-m", "--", "earwitness"]
        assert one.command[:2] == ["earwitness", "train"]
    with pytest.raises(ConfigError, match="--processes 3: the batch .* is 32 clips in total"):
        plan(tmp_path, processes=3)


def test_a_run_that_stopped_early_is_finished(tmp_path):
    stage = plan(tmp_path).stages[0]
    finish(stage, epoch=1)
    assert not stage.finished
    progress = stage.run / "checkpoint" / "progress.json"
    progress.write_text(json.dumps({"epoch": 1, "stale": 2}))
    assert not stage.finished
    patient = dataclasses.replace(stage, overrides=(*stage.overrides, "fit.patience=2"))
    assert patient.finished


def test_captions_of_a_stopped_call_are_kept_and_those_of_other_weights_are_not(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    clips = clips_to_caption(manifest(tmp_path / "test.jsonl", clips=3))
    path = tmp_path / "captions.jsonl"
    found = decode(model, clips, path)
    assert list(found) == [clip.id for clip in clips]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["id"]: row["caption"] for row in rows} == found
    kept = {**rows[0], "caption": "kept"}
    other = {**rows[1], "caption": "of other weights", "weights": 1}
    path.write_text("\n".join([json.dumps(kept), json.dumps(other), '{"id": "ha']))
    again = decode(model, clips, path)
    assert again == {**found, rows[0]["id"]: "kept"}


@pytest.mark.slow
def test_two_processes_caption_a_test_set_together(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    test = manifest(tmp_path / "test.jsonl", clips=5)
    clips = clips_to_caption(test)
    alone = decode(model, clips, tmp_path / "alone.jsonl")
    path = tmp_path / "together.jsonl"
    words = ["earwitness_lab.reproduce.decode", str(model), str(test), "-o", str(path)]
    launch(2, words, "captioning")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["id"]: row["caption"] for row in rows} == alone
    assert not list(tmp_path.glob("together.part*"))
