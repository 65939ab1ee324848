"""Folders tampered with give one sentence or finite numbers, and nothing of them is run."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from earwitness.errors import CheckpointError, ConfigError
from earwitness_lab.hostile import campaign
from earwitness_lab.hostile.folders import KINDS, answered
from earwitness_lab.hostile.tampering import Bomb, retype, tamper

INDEX = "model.safetensors.index.json"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("good")
    for name, kind in KINDS.items():
        kind.make(root / name)
    return {name: root / name for name in KINDS}


def set_json(name: str, *keys: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        whole = json.loads(path.read_text())
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(whole))

    return change


def set_text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text) and None


def set_index(part: str, target: Any) -> Change:
    def change(folder: Path) -> None:
        place = folder / part
        (place / "model.safetensors").rename(place / "kept.safetensors")
        bomb = pickle.dumps(Bomb())
        (place / "notes.txt").write_bytes(bomb)
        (folder.parent / "x.dat").write_bytes(bomb)
        (place / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": target}}))

    return change


def link_out(name: str) -> Change:
    def change(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / "outside")
        (folder / name).symlink_to(folder.parent / "outside")

    return change


def pickle_by_config(folder: Path) -> None:
    set_json("decoder/config.json", "transformers_weights", value="adapter_model.bin")(folder)
    (folder / "decoder/adapter_model.bin").write_bytes(pickle.dumps(Bomb()))


def adapter(folder: Path) -> None:
    text = json.dumps({"base_model_name_or_path": "../../elsewhere", "peft_type": "LORA"})
    (folder / "decoder/adapter_config.json").write_text(text)


def as_dtype(name: str, dtype: str, tensor: str) -> Change:
    return lambda folder: retype(folder / name, dtype, random.Random(0), tensor) and None


def fifo(folder: Path) -> None:
    (folder / "encoder/config.json").unlink()
    os.mkfifo(folder / "encoder/config.json")


LLM, OURS, CED = "decoder/config.json", "earwitness.json", "encoder/config.json"
THETA = ("rope_parameters", "rope_theta")
LAYER = "model.layers.0.mlp.up_proj.weight"
EXAMPLES: dict[str, tuple[str, Change, str]] = {
    "index of a pickle": ("lamb", set_index("decoder", "notes.txt"), "'notes.txt'"),
    "index of a file outside": ("lamb", set_index("decoder", "../../x.dat"), "'../../x.dat'"),
    "index of a number": ("lamb", set_index("decoder", 3), "'3'"),
    "index of CLAP": ("clap", set_index("", "../x.safetensors"), "'../x.safetensors'"),
    "index of sentences": ("sentence encoder", set_index("", "notes.txt"), "'notes.txt'"),
    "index of fluency": ("fluency detector", set_index("", "../x.dat"), "'../x.dat'"),
    "link of a decoder": ("lamb", link_out("decoder/model.safetensors"), "a link out of"),
    "link of CED": ("lamb", link_out("encoder/model.safetensors"), "a link out of"),
    "link of a dual encoder": ("link", link_out("encoder/model.safetensors"), "a link out of"),
    "pickle that the settings name": ("lamb", pickle_by_config, "transformers_weights"),
    "model that an adapter names": ("lamb", adapter, "adapter_config.json"),
    "kernel of the hub": ("lamb", set_json(LLM, "attn_implementation", value="a/b"), "code"),
    "int8 decoder": ("lamb", as_dtype("decoder/model.safetensors", "I8", LAYER), "holds I8"),
    "float8 CED": (
        "lamb",
        as_dtype("encoder/model.safetensors", "F8_E4M3", "norm.weight"),
        "holds",
    ),
    "NaN": ("lamb", set_json(LLM, *THETA, value=float("nan")), "NaN is not a finite number"),
    "1e999": ("lamb", set_text(LLM, '{"rms_norm_eps": 1e999}'), "1e999 is not a finite number"),
    "no rotation": ("lamb", set_json(LLM, *THETA, value=0), "not finite"),
    "root of a negative": ("lamb", set_json(LLM, "rms_norm_eps", value=-9.0), "not finite"),
    "layers": ("lamb", set_json(LLM, "num_hidden_layers", value=10**6), "is 1000000; expected at"),
    "width": ("lamb", set_json(LLM, "hidden_size", value=10**8), "is 100000000; expected at"),
    "vocabulary": ("lamb", set_json(LLM, "vocab_size", value=10**9), "vocab_size is 1000000000"),
    "layers of CLAP": (
        "clap",
        set_json("config.json", "text_config", "num_hidden_layers", value=10**6),
        "num_hidden_layers is 1000000",
    ),
    "depth of CED": ("lamb", set_json(CED, "depth", value=10**6), "depth is 1000000; expected at"),
    "width of CED": ("lamb", set_json(CED, "embed_dim", value=10**6), "has shape"),
    "layers of a GRU": (
        "lamb",
        set_json(OURS, "config", "prefix", "gru_layers", value=10**6),
        "gru_layers is 1000000",
    ),
    "link of a graph": ("runtime", link_out("prefix.onnx"), "a link out of"),
    "another graph": ("runtime", set_text("decoder.onnx", "x"), "not the file"),
    "layers of a graph": ("runtime", set_json("runtime.json", "layers", value=3), "layers is 3"),
    "token of a graph": ("runtime", set_json("runtime.json", "end", value=10**5), "token 100000"),
    "beams": (
        "lamb",
        set_json(OURS, "config", "decoding", "beam_size", value=10**6),
        "beam_size is 1000000; expected at most 256",
    ),
    "windows of CLAP": (
        "clap",
        set_json("preprocessor_config.json", "fft_window_size", value=10**7),
        "fft_window_size is 10000000",
    ),
    "tokens": ("lamb", set_json(OURS, "config", "prefix", "n_global", value=10**7), "shape"),
    "head of a dual encoder": ("link", set_json(CED, "hidden", value=10**7), "has shape"),
    "5,000 digits": (
        "lamb",
        set_text(CED, '{"depth": ' + "9" * 5000 + "}"),
        "not readable as JSON",
    ),
    "lists in lists": ("lamb", set_text(CED, "[" * 10**5), "not readable as JSON"),
    "half a character": ("lamb", set_text(OURS, '{"name": "\\ud800"}'), "half a character"),
    "card that is a list": ("lamb", set_json(OURS, "card", value=[1]), "'card' is of type list"),
    "pipe in place of a file": ("lamb", fifo, "a folder or a device"),
    "newer format": ("lamb", set_json(OURS, "format", value=99), "model format 99"),
    "length of a tokenizer": (
        "lamb",
        set_json("decoder/tokenizer_config.json", "model_max_length", value="1"),
        "not a readable causal language model",
    ),
    "band of CED": (
        "lamb",
        set_json(CED, "log_mel", "f_min", value=10**6),
        "is not below f_max 8000",
    ),
    "heads of a dual encoder": ("link", set_json(CED, "text", "heads", value=5), "can be built"),
    "token beyond the table": (
        "sentence encoder",
        set_json("tokenizer_config.json", "pad_token", value="1"),
        "not a working sentence encoder",
    ),
}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_tampered_folder_is_refused_in_one_sentence(good, tmp_path, monkeypatch, name):
    kind, change, words = EXAMPLES[name]
    folder = Path(shutil.copytree(good[kind], tmp_path / "in" / "model"))
    change(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        KINDS[kind].use(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("pickle-was-run"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_folder_that_nobody_touched_gives_the_same_answer_twice(good, kind):
    assert answered(kind, good[kind]) == "captioned"
    first, second = (KINDS[kind].use(good[kind]) for _ in range(2))
    assert str(first) == str(second)


def test_a_snapshot_of_links_into_its_own_repository_is_loaded(good, tmp_path):
    snapshot = tmp_path / "models--ada--bert" / "snapshots" / ("a" * 40)
    shutil.copytree(good["sentence encoder"], snapshot)
    blobs = tmp_path / "models--ada--bert" / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    assert answered("sentence encoder", snapshot) == "captioned"


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 2**32))
@example(kind="lamb", seed=0)
def test_any_tampered_folder_is_refused_or_gives_numbers(good, tmp_path, kind, seed):
    place = tmp_path / "in"
    shutil.rmtree(place, ignore_errors=True)
    folder = Path(shutil.copytree(good[kind], place / "model"))
    what = tamper(folder, random.Random(seed))
    outcome, detail = campaign.judged(lambda: answered(kind, folder))
    assert outcome in ("refused", "captioned"), f"{what}: {detail}"


def test_the_campaign_counts_what_goes_wrong_and_outlives_it():
    def refusing() -> campaign.Outcome:
        raise CheckpointError("no")

    def breaking() -> campaign.Outcome:
        raise KeyError("x")

    def dying() -> campaign.Outcome:
        os._exit(3)

    def hanging() -> campaign.Outcome:
        import time

        time.sleep(60)
        return "captioned"

    attempts = [
        campaign.Attempt("a", refusing),
        campaign.Attempt("b", lambda: "captioned"),
        campaign.Attempt("c", breaking),
        campaign.Attempt("d", dying),
        campaign.Attempt("e", hanging),
    ]
    section = campaign.run("mixed", attempts, limit_s=1.0, gigabytes=64.0)
    assert section.counts == {"refused": 1, "captioned": 1, "traceback": 1, "lost": 2}
    assert section.row.startswith("| mixed | 5 | 1 | 1 | 2 | 1 |")
    assert "KeyError" in campaign.report([section])
