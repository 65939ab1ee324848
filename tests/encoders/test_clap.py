"""The CLAP encoder against transformers, on a tiny random model written in the hub's format."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clap import RATE, WINDOW, sound, write_folder
from torch import Tensor
from torch.nn.functional import normalize

from earwitness.encoders.base import EmbeddingEncoder
from earwitness.encoders.clap import ClapEncoder
from earwitness.errors import AudioError, CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ClapEncoder:
    return ClapEncoder.from_folder(folder)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder to damage."""
    return Path(shutil.copytree(folder, tmp_path / "clap"))


# Audio


def test_encoder_satisfies_the_protocol(encoder: ClapEncoder) -> None:
    assert isinstance(encoder, EmbeddingEncoder)
    assert (encoder.dim, encoder.sample_rate) == (12, RATE)


@pytest.mark.parametrize("samples", [WINDOW, 3 * RATE])
def test_embed_audio_equals_the_model_fed_by_its_processor(
    encoder: ClapEncoder, folder: Path, samples: int
) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    clips = [sound(samples, seed) for seed in (0, 1)]
    inputs = extractor([c.numpy() for c in clips], sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        out = model.get_audio_features(input_features=inputs["input_features"].float())
    expected = normalize(out.pooler_output, dim=1)
    assert (expected[0] @ expected[1]).item() < 0.999
    torch.testing.assert_close(encoder.embed_audio(clips), expected, rtol=0, atol=1e-4)


def test_embed_audio_of_a_fusion_model_equals_its_global_path(tmp_path: Path) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    folder = write_folder(tmp_path, fusion=True, truncation="fusion", frequency_min=0)
    clip = sound(WINDOW)
    model = ClapModel.from_pretrained(folder).eval()
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    inputs = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        out = model.get_audio_features(
            input_features=inputs["input_features"].float(), is_longer=torch.tensor([[False]])
        )
    got = ClapEncoder.from_folder(folder).embed_audio([clip])
    torch.testing.assert_close(got, normalize(out.pooler_output, dim=1), rtol=0, atol=1e-4)


def test_same_file_gives_the_same_bytes_in_any_company(encoder: ClapEncoder, folder: Path) -> None:
    clip, other, long = sound(12 * RATE), sound(2 * RATE, 1), sound(21 * RATE, 2)
    first = encoder.embed_audio([clip])[0]
    np.random.seed(1)
    torch.manual_seed(1)
    again = ClapEncoder.from_folder(folder).train().embed_audio([other, clip, long])[1]
    assert first.numpy().tobytes() == again.numpy().tobytes()


def test_long_file_is_the_renormalised_mean_of_its_windows(encoder: ClapEncoder) -> None:
    clip = sound(23 * RATE)
    starts = [0, 10 * RATE, 13 * RATE]
    windows = encoder.embed_audio([clip[s : s + WINDOW] for s in starts])
    expected = normalize(windows.mean(dim=0), dim=0)
    torch.testing.assert_close(encoder.embed_audio([clip])[0], expected, rtol=0, atol=1e-6)


def test_stride_sets_the_windows(folder: Path, encoder: ClapEncoder) -> None:
    clip = sound(15 * RATE)
    dense = ClapEncoder.from_folder(folder, stride_seconds=2.5)
    windows = encoder.embed_audio([clip[s : s + WINDOW] for s in (0, int(2.5 * RATE), 5 * RATE)])
    expected = normalize(windows.mean(dim=0), dim=0)
    torch.testing.assert_close(dense.embed_audio([clip])[0], expected, rtol=0, atol=1e-6)


def test_batch_equals_single(folder: Path, encoder: ClapEncoder) -> None:
    clips = [sound(WINDOW), sound(700, 1), sound(12 * RATE, 2)]
    batched = ClapEncoder.from_folder(folder, batch_size=3).embed_audio(clips)
    torch.testing.assert_close(batched, encoder.embed_audio(clips), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "clip",
    [torch.zeros(WINDOW), torch.zeros(1), sound(1), sound(479), np.zeros(100, np.float32)],
    ids=["silence", "one zero", "one sample", "shorter than a hop", "array"],
)
def test_silence_and_short_clips_give_finite_unit_vectors(encoder: ClapEncoder, clip: Any) -> None:
    e = encoder.embed_audio([clip])
    assert e.dtype == torch.float32
    torch.testing.assert_close(e.norm(dim=1), torch.ones(1))


def test_array_and_float64_give_what_the_tensor_gives(encoder: ClapEncoder) -> None:
    clip = sound(5_000)
    expected = encoder.embed_audio([clip])
    assert torch.equal(encoder.embed_audio([clip.numpy()]), expected)
    assert torch.equal(encoder.embed_audio([clip.double()]), expected)


def test_nothing_in_gives_nothing_out(encoder: ClapEncoder) -> None:
    assert encoder.embed_audio([]).shape == (0, 12)
    assert encoder.embed_text([]).shape == (0, 12)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.zeros(0), r"clip 1 has shape \(0,\)"),
        (torch.zeros(2, 100), r"clip 1 has shape \(2, 100\)"),
        (torch.zeros(100, dtype=torch.int16), "torch.int16"),
        (torch.full((100,), torch.inf), "not finite"),
    ],
)
def test_unusable_clip_is_refused_by_its_number(
    encoder: ClapEncoder, clip: Tensor, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        encoder.embed_audio([sound(100), clip])


# Text


def test_embed_text_equals_the_model_one_by_one(encoder: ClapEncoder, folder: Path) -> None:
    from transformers import AutoTokenizer, ClapModel

    texts = ["a dog barks", "rain", "a man speaks and a car passes by"]
    model = ClapModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in texts:
            out = model.get_text_features(**tokenizer(text, return_tensors="pt"))
            rows.append(normalize(out.pooler_output, dim=1))
    expected = torch.cat(rows)
    assert (expected[0] @ expected[1]).item() < 0.999
    torch.testing.assert_close(encoder.embed_text(texts), expected, rtol=0, atol=1e-5)


def test_overlong_text_is_cut_at_the_last_position(encoder: ClapEncoder) -> None:
    e = encoder.embed_text(["a dog barks " * 50, "a dog barks " * 60])
    assert torch.equal(e[0], e[1])


def test_many_texts_keep_their_order(encoder: ClapEncoder) -> None:
    texts = [f"a dog barks {'and rain falls ' * (i % 3)}{i}" for i in range(130)]
    together = encoder.embed_text(texts)
    for i in (0, 63, 64, 129):
        torch.testing.assert_close(
            together[i], encoder.embed_text([texts[i]])[0], rtol=0, atol=1e-5
        )


def test_blank_text_is_refused(encoder: ClapEncoder) -> None:
    with pytest.raises(DataError, match="text 1 is blank"):
        encoder.embed_text(["rain", " \n"])


# Folders


def test_encoder_is_frozen_and_stays_in_evaluation_mode(encoder: ClapEncoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_saved_folder_loads_to_the_same_encoder(encoder: ClapEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "again")
    again = ClapEncoder.from_folder(tmp_path / "again")
    assert torch.equal(again.embed_audio([sound(900)]), encoder.embed_audio([sound(900)]))
    assert torch.equal(again.embed_text(["rain"]), encoder.embed_text(["rain"]))


def test_settings_nested_in_a_processor_file_load_too(broken: Path, encoder: ClapEncoder) -> None:
    settings = json.loads((broken / "preprocessor_config.json").read_text())
    (broken / "preprocessor_config.json").unlink()
    nested = {"feature_extractor": settings, "processor_class": "ClapProcessor"}
    (broken / "processor_config.json").write_text(json.dumps(nested))
    assert ClapEncoder.from_folder(broken).settings == encoder.settings


def test_pickled_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled.*expected model.safetensors"):
        ClapEncoder.from_folder(broken)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "model.safetensors or .* is missing"),
        ("preprocessor_config.json", "preprocessor_config.json or .* is missing"),
        ("tokenizer.json", "tokenizer.json or vocab.json is missing"),
    ],
)
def test_missing_file_is_named(broken: Path, name: str, message: str) -> None:
    (broken / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        ClapEncoder.from_folder(broken)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        ClapEncoder.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_damaged_file_is_refused(broken: Path, name: str) -> None:
    (broken / name).write_bytes((broken / name).read_bytes()[:20])
    with pytest.raises(CheckpointError, match="not readable|damaged"):
        ClapEncoder.from_folder(broken)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_another_kind_of_model_is_refused(broken: Path) -> None:
    edit(broken / "config.json", model_type="bert")
    with pytest.raises(CheckpointError, match="'bert' model; expected 'clap'"):
        ClapEncoder.from_folder(broken)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"truncation": "fusion"}, CheckpointError, "expected 'rand_trunc'"),
        ({"feature_size": 32}, CheckpointError, "32 mel bins, but the network expects 64"),
        ({"max_length_s": 11}, CheckpointError, "windows of at most 1024 frames, got 1101"),
        ({"padding": "mirror"}, ConfigError, "padding"),
    ],
)
def test_processor_that_does_not_fit_is_refused(
    broken: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    edit(broken / "preprocessor_config.json", **changes)
    with pytest.raises(error, match=message):
        ClapEncoder.from_folder(broken)


def test_incomplete_and_foreign_weights_are_refused_and_computed_buffers_are_not(
    broken: Path,
) -> None:
    from safetensors.torch import load_file, save_file

    path = broken / "model.safetensors"
    weights = load_file(path)
    metadata = {"format": "pt"}
    harmless = {"text_model.embeddings.position_ids": torch.arange(40)[None]}
    save_file(weights | harmless, path, metadata)
    ClapEncoder.from_folder(broken)
    save_file(weights | {"extra.weight": torch.zeros(1)}, path, metadata)
    with pytest.raises(CheckpointError, match="also hold 'extra.weight'"):
        ClapEncoder.from_folder(broken)
    del weights["audio_projection.linear1.weight"]
    save_file(weights, path, metadata)
    with pytest.raises(CheckpointError, match="lack 'audio_projection.linear1.weight'"):
        ClapEncoder.from_folder(broken)


def test_weights_of_another_shape_are_refused(broken: Path) -> None:
    edit(broken / "config.json", projection_dim=13)
    with pytest.raises(CheckpointError, match="a readable CLAP model"):
        ClapEncoder.from_folder(broken)


@pytest.mark.parametrize("stride", [0.0, -1.0, 10.5])
def test_stride_outside_the_window_is_refused(folder: Path, stride: float) -> None:
    with pytest.raises(ConfigError, match="at most 10.0"):
        ClapEncoder.from_folder(folder, stride_seconds=stride)


def test_batch_size_below_one_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 0"):
        ClapEncoder.from_folder(folder, batch_size=0)
