"""Development sets kept out of training, single sounds with their sentences, and consensus."""

import csv
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from earwitness.data.captions import development_ids
from earwitness.encoders import load_frame_encoder, save_frame_encoder
from earwitness.encoders.class_head import ClassHead
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.encoders.dual import DualConfig, DualEncoder, TextTowerConfig
from earwitness.errors import DataError
from earwitness.training.contrastive import DualTraining, only_audio
from earwitness.training.language_model import (
    train_tokenizer,
    training_captions,
    validation_captions,
)
from earwitness_lab.pocket.classes import (
    ClassesRecipe,
    balance,
    best_temperature,
    calibration_error,
    run,
)
from earwitness_lab.pocket.consensus import Candidate, agreed
from earwitness_lab.pocket.development import read_development, read_recordings
from earwitness_lab.pocket.ears_source import balanced
from earwitness_lab.pocket.real_pool import EarRows, at_some_level
from earwitness_lab.pocket.real_sound import RealSound, is_heldout, real_sounds
from earwitness_lab.pocket.single_sounds import PLAIN, plain_sound, sentences
from earwitness_lab.scenes.lexicon import Lexicon

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RATE = 16000


def write(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Caption lists of which clips a, b (AudioCaps) and c.wav (Clotho) are development clips."""
    five = [f"caption_{number}" for number in range(1, 6)]
    head = ["file", "clip_id", *five]
    write(tmp_path / "dev/captions.csv", head, [["a.opus", "a", "One.", "Two", "3", "4", "5"]])
    second = [["b.opus", "b", "Only one", "", "", "", ""], ["c.opus", "c.wav", *"vwxyz"]]
    write(tmp_path / "dev2/captions.csv", head, second)
    for split in ("train", "val"):
        rows = [["1", clip, "0", f"{split} {clip}"] for clip in ("a", "b", "kept")]
        columns = ["audiocap_id", "youtube_id", "start_time", "caption"]
        write(tmp_path / f"captions/audiocaps_{split}.csv", columns, rows)
        clips = [[name, *[f"{split} {name}"] * 5] for name in ("c.wav", "d.wav")]
        write(tmp_path / f"captions/clotho_{split}.csv", ["file_name", *five], clips)
    return tmp_path


def test_captions_of_both_development_sets_are_left_out_of_training_and_validation(data: Path):
    assert development_ids(data) == {"a", "b", "c.wav"}
    assert set(training_captions(data)) == {"train kept", "train d wav"}
    assert set(validation_captions(data)) == {"val kept", "val d wav"}


def test_the_second_development_set_may_be_missing(data: Path):
    (data / "dev2/captions.csv").unlink()
    assert development_ids(data) == {"a"}


def test_both_sets_are_one_after_the_other_with_the_captions_that_there_are(data: Path):
    files, references = read_development(data)
    assert [file.name for file in files] == ["a.opus", "b.opus", "c.opus"]
    assert references[0] == ["one", "two", "3", "4", "5"]
    assert references[1] == ["only one"]
    write(data / "dev/captions.csv", ["file", "caption_1"], [["x.opus", ""]])
    with pytest.raises(DataError, match=r"'x.opus' has no caption; expected one to five"):
        read_recordings(data / "dev")


def test_real_sounds_without_derivatives_are_left_out_and_benchmark_sources_held_out(
    tmp_path: Path,
):
    columns = ["path", "source", "label", "description", "kind", "origin"]
    labeled = [[f"{n}.opus", "s", "dog_barking", "", "free", f"r@1:dog{n}x.wav"] for n in range(9)]
    labeled.append(["no.opus", "s", "dog_barking", "", "NC-ND", "r@1:no.wav"])
    write(tmp_path / "train_audio/manifest.csv", columns, labeled)
    more = [
        ["horn.opus", "t", "vehicle_horn", "Car HORN", "free", "r@2:horn.wav"],
        ["cat.opus", "snap_scratch", "cat_meowing", "", "free", "r@3:cat.wav"],
    ]
    write(tmp_path / "more_audio/manifest.csv", columns, more)
    sounds = real_sounds(tmp_path)
    assert [sound.path.name for sound in sounds] == [f"{n}.opus" for n in range(9)] + [
        "horn.opus",
        "cat.opus",
    ]
    assert sounds[-1].heldout
    assert sounds[-2].description == "car horn"
    assert any(sound.heldout for sound in sounds[:9])
    with pytest.raises(DataError, match="elsewhere"):
        real_sounds(tmp_path / "elsewhere")


def test_about_the_wanted_share_of_recordings_is_held_out():
    shares = [is_heldout(f"recording {number}", 0.25) for number in range(4000)]
    assert 0.22 < np.mean(shares) < 0.28


def test_a_rare_class_is_drawn_more_often_than_its_share():
    def sound(label: str, recording: str) -> RealSound:
        return RealSound(Path(recording), "s", label, "", recording, False)

    sounds = [sound("dog", f"d{n}") for n in range(100)] + [sound("owl", "o1")]
    chosen = balanced(sounds, list(range(101)), 2200, seed=0)
    share = chosen.count(100) / len(chosen)
    assert share == pytest.approx(1 / 11, abs=0.02)
    assert balanced(sounds, [0, 100], 50, seed=0) == balanced(sounds, [0, 100], 50, seed=0)


def test_levels_go_down_by_at_most_40_db_and_some_recordings_stay_as_they_are():
    tone = np.sin(np.arange(RATE) / 5).astype(np.float32) * np.float32(0.5)
    heard = [at_some_level(tone, np.random.default_rng(seed)) for seed in range(60)]
    gains = [20 * np.log10(np.abs(h @ tone) / (tone @ tone)) for h in heard]
    assert min(gains) > -42
    assert min(gains) < -30
    assert 0.15 < np.mean([np.array_equal(h, tone) for h in heard]) < 0.55


@pytest.mark.parametrize("index", range(len(PLAIN)))
def test_a_plain_sound_is_what_it_is_called_and_the_same_each_time(index: int):
    waveform, kind, said = plain_sound(index, 3, RATE)
    again = plain_sound(index, 3, RATE)
    assert np.array_equal(waveform, again[0])
    assert (kind, said) == again[1:]
    assert kind == PLAIN[index]
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() <= 1.0
    level = 10 * np.log10(np.mean(np.square(waveform)) + 1e-12)
    assert (level < -50) == (kind == "silence")
    if kind == "tone":
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
        loudest = np.sort(spectrum)[::-1]
        assert loudest[:12].sum() / loudest.sum() > 0.8


def test_every_sentence_of_a_class_is_one_of_captions_without_punctuation():
    said = sentences()
    assert Lexicon.load().labels() <= set(said)
    assert all(re.fullmatch(r"[a-z ]+", text) for texts in said.values() for text in texts)


def test_the_caption_that_other_captioners_agree_with_is_chosen():
    first = [Candidate("a dog barks", -0.4), Candidate("an engine runs", -0.3)]
    second = [Candidate("a dog barks and a man speaks", -0.9), Candidate("a dog barks", -1.0)]
    found = agreed([first, second])
    assert found.text == "a dog barks"
    assert found.agreement == 1.0
    alone = agreed([[Candidate("rain", -1.0)], [Candidate("a baby cries", -1.0)]])
    assert alone.agreement == 0.0
    assert agreed([[], []]).text == ""


def test_the_ears_benchmark_has_words_for_every_kind_and_no_sound_of_a_training_source():
    with (BENCHMARKS / "ears.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = tomllib.loads((BENCHMARKS / "ears_words.toml").read_text(encoding="utf-8"))
    assert {row["kind"] for row in rows} == set(words)
    assert len({(row["package"], row["path"]) for row in rows}) == len(rows) >= 200
    assert not {row["package"] for row in rows if row["package"].startswith("minetest")}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained frame encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = CNNConfig(stem=4, channels=(4, 8, 8), blocks=(0, 0, 0), dim=12, dilations=(1,))
    save_frame_encoder(CNN(config), folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight recordings each of two classes that differ in pitch, and a damaged file."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for label, hertz in (("dog_barking", 300.0), ("siren", 2500.0)):
        for number in range(8):
            time = np.arange(RATE * (1 + number % 2)) / RATE
            name = f"{label}_{'abcdefgh'[number]}.wav"
            rows.append([name, "s", label, "", "free", f"r@1:{name}"])
            (folder / "train_audio").mkdir(exist_ok=True)
            tone = 0.5 * np.sin(2 * np.pi * hertz * (1 + 0.02 * number) * time)
            soundfile.write(folder / "train_audio" / name, tone, RATE)
    columns = ["path", "source", "label", "description", "kind", "origin"]
    write(folder / "train_audio/manifest.csv", columns, rows)
    damaged = [["broken.wav", "t", "siren", "", "free", "r@2:broken.wav"]]
    write(folder / "more_audio/manifest.csv", columns, damaged)
    (folder / "more_audio/broken.wav").write_bytes(b"RIFF")
    return folder


def test_rows_have_the_length_of_the_recording_and_none_for_a_damaged_file(
    sounds: Path, encoder: Path
) -> None:
    maker = EarRows(sounds, sounds / "cache", encoder, "code", 12, "recordings")
    row = maker.open()
    counts = [int(row(index)["count"]) for index in (0, 1, 16)]
    assert counts == [7, 13, 0]
    assert row(0)["frames"].shape == (63, 12)
    assert np.array_equal(row(1)["frames"], row(1)["frames"])
    assert maker.shapes().keys() == row(0).keys()


def test_the_stage_leaves_a_head_that_tells_the_classes_apart(
    sounds: Path, encoder: Path, tmp_path: Path
) -> None:
    five = [f"caption_{number}" for number in range(1, 6)]
    write(sounds / "dev/captions.csv", ["file", "clip_id", *five], [["a", "a", *"vwxyz"]])
    columns = ["audiocap_id", "youtube_id", "start_time", "caption"]
    rows = [["1", "b", "0", "Puppies barked"], ["2", "a", "0", "A doglike bark of a dev clip"]]
    write(sounds / "captions/audiocaps_train.csv", columns, rows)
    write(sounds / "captions/clotho_train.csv", ["file_name", *five], [["c.wav", *"vwxyz"]])
    settings = {"stage": "classes", "data": sounds, "encoder": encoder, "plain": 14}
    scores = run(ClassesRecipe(**settings, decay=1e-3), tmp_path / "run")  # type: ignore[arg-type]
    assert scores["top1"] == 1.0
    head = ClassHead.load(tmp_path / "run/best/encoder")
    assert head is not None
    assert {"dog_barking", "siren", "tone"} <= set(head.config.labels)
    dog = head.config.labels.index("dog_barking")
    assert head.config.names[dog] == "Bark"
    assert {"barked", "barks", "dog"} <= set(head.config.words[dog])
    assert "is" not in head.config.words[dog]


def test_calibration_error_is_the_distance_of_accuracy_and_probability() -> None:
    probabilities = torch.tensor([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2)
    target = torch.tensor([0, 0, 1, 1, 1, 1])
    expected = 4 / 6 * abs(0.5 - 0.75) + 2 / 6 * abs(1.0 - 0.95)
    assert calibration_error(probabilities, target) == pytest.approx(expected, abs=1e-6)


def test_the_best_temperature_undoes_a_known_one() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=rng) * 2
    target = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    assert best_temperature(logits * 2.5, target) == pytest.approx(2.5, rel=0.15)


def test_a_recording_cut_into_pieces_counts_by_the_square_root_of_their_number() -> None:
    groups = [("dog", "long")] * 16 + [("dog", "short"), ("owl", "one")]
    weights = balance(groups, np.ones(18, bool))
    assert weights[:16].sum() / weights[16] == pytest.approx(4.0)
    assert weights[:17].sum() / weights[17] == pytest.approx(5**0.5)


def test_only_the_audio_side_changes_where_only_it_is_trained(encoder: Path) -> None:
    captions = ["a dog barks", "rain falls", "a siren wails", "wind blows"]
    tokenizer = train_tokenizer(captions * 3, 60)
    sizes = TextTowerConfig(vocabulary=len(tokenizer), hidden=8, layers=1, heads=2, feed_forward=8)
    config = DualConfig(dim=4, hidden=6, attention_heads=1, text=sizes)
    dual = DualEncoder(load_frame_encoder(encoder), tokenizer, config)
    only_audio(dual)
    training = DualTraining(dual, 0.0).train()
    before = dual.text_vectors(captions).detach()
    optimizer = torch.optim.SGD([p for p in dual.parameters() if p.requires_grad], lr=0.5)
    batch = {"frames": torch.randn(4, 9, 12), "texts": captions}
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = training(batch)["contrastive"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    torch.testing.assert_close(dual.text_vectors(captions).detach(), before)
