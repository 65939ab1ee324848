"""Hugging Face data sets as a training source: on disk and streamed, the same clips both ways."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from builders import noise

from earwitness import audio
from earwitness.errors import ConfigError, DataError
from earwitness.training.batches import epoch_batches
from earwitness.training.datasets_source import DatasetsSource
from earwitness.training.settings import FitConfig
from earwitness.training.source import Opening
from earwitness.training.stages import run_recipe

datasets = pytest.importorskip("datasets")
FEATURES = datasets.Features(
    {
        "audio": datasets.Audio(),
        "caption": datasets.List(datasets.Value("string")),
        "other": datasets.Value("int64"),
    }
)
TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny.toml"


def wav(index: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(0.4, index), 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Parquet files with 24 training and 6 validation clips, two captions each."""
    place = tmp_path_factory.mktemp("set")
    for split, first, count in (("train", 0, 24), ("validation", 24, 6)):
        numbers = range(first, first + count)
        columns = {
            "audio": [{"bytes": wav(i), "path": f"{i}.wav"} for i in numbers],
            "caption": [[f"Sound {i} rings.", f"sound {i} again"] for i in numbers],
            "other": list(numbers),
        }
        # Written as the hub's files are, with the kind of each column in the schema; `datasets`
        # itself writes sound only with torchcodec.
        schema = FEATURES.arrow_schema
        pq.write_table(pa.table(columns, schema), place / f"{split}-00000-of-00001.parquet")
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # `datasets` waits 5 s after each pass over parquet files, lest an ending process crash.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01)


def opened(folder, tmp_path, **changes):
    source = DatasetsSource(kind="datasets", dataset=str(folder), **changes)
    return source.open(Opening(None, 16000, tmp_path, 3))


def number(item) -> int:
    return int(item["text"].split()[1])


def test_items_are_the_sounds_with_one_of_their_captions(folder, tmp_path):
    splits = opened(folder, tmp_path)
    assert (len(splits.train), len(splits.validation)) == (24, 6)
    texts = set()
    for epoch in range(4):
        item = splits.train[(5, epoch)]
        np.testing.assert_array_equal(item["waveform"], noise(0.4, 5))
        texts.add(item["text"])
    assert texts == {"sound 5 rings", "sound 5 again"}
    assert splits.validation.references[0] == ["sound 24 rings", "sound 24 again"]
    assert len(splits.captions) == 48


def test_a_stream_is_a_new_order_each_epoch_and_the_same_one_again(folder, tmp_path):
    stream = opened(folder, tmp_path, streaming=True, shuffle_buffer=8, items_per_epoch=24).train
    orders = [[number(stream[(i, epoch)]) for i in range(24)] for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(24))
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]


def test_a_place_in_a_stream_can_be_asked_for_as_a_resumed_run_and_a_worker_do(folder, tmp_path):
    stream = opened(folder, tmp_path, streaming=True, shuffle_buffer=8, items_per_epoch=24).train
    order = [number(stream[(i, 2)]) for i in range(24)]
    other = pickle.loads(pickle.dumps(stream))
    assert [number(other[(i, 2)]) for i in (3, 4, 11, 5)] == [order[i] for i in (3, 4, 11, 5)]
    item, again = stream[(7, 2)], other[(7, 2)]
    assert item["text"] == again["text"]
    np.testing.assert_array_equal(item["waveform"], again["waveform"])


def test_a_short_stream_goes_round_again(folder, tmp_path):
    stream = opened(folder, tmp_path, streaming=True, shuffle_buffer=8, items_per_epoch=60).train
    seen = [number(stream[(i, 0)]) for i in range(60)]
    assert sorted(seen[:24]) == sorted(seen[24:48]) == list(range(24))
    assert seen[:24] != seen[24:48]


def test_the_loop_asks_for_the_places_of_a_stream_in_order(folder, tmp_path):
    stream = opened(folder, tmp_path, streaming=True, items_per_epoch=24).train
    batches = epoch_batches(stream, FitConfig(batch_size=8))
    assert [i for batch in batches for i, _ in batch] == list(range(24))


def test_a_stream_that_does_not_know_its_size_says_what_to_set(folder, tmp_path):
    with pytest.raises(ConfigError, match="source.items_per_epoch: .* does not say how many clips"):
        opened(folder, tmp_path, streaming=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": "sound"}, "no column 'sound'; it has audio, caption, other"),
        ({"train": "trian"}, "split 'trian': "),
        ({"dataset": "nowhere/at-all"}, "source.dataset 'nowhere/at-all'"),
        ({"captions": "other"}, "clip 0 has no caption"),
    ],
)
def test_what_is_missing_is_named(folder, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        opened(changes.pop("dataset", folder), tmp_path, **changes)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_tiny_recipe_trains_on_it(folder, tmp_path, streaming):
    words = ["kind=datasets", f"dataset={folder}", f"streaming={str(streaming).lower()}"]
    changes = [f"source.{word}" for word in (*words, "items_per_epoch=16")]
    changes += [f"fit.{word}" for word in ("epochs=2", "batch_size=8", "trackers=[]")]
    run_recipe(TINY, tmp_path / "run", changes)
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "total" in row]
    assert len(steps) == (4 if streaming else 6)
    assert (tmp_path / "run" / "best" / "earwitness.json").is_file()


def test_sound_is_decoded_by_earwitness_alone(folder, tmp_path, monkeypatch):
    loaded = []
    real = audio.load
    monkeypatch.setattr(
        audio, "load", lambda source, rate: loaded.append(source) or real(source, rate)
    )
    _ = opened(folder, tmp_path).train[(2, 0)]
    (file,) = loaded
    np.testing.assert_array_equal(soundfile.read(io.BytesIO(file))[0], noise(0.4, 2))
