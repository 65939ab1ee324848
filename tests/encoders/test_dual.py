"""The dual encoder: unit vectors, fixed windows, strict folders, a loss that teaches retrieval."""

import json

import pytest
import torch
from builders import noise
from link_parts import tiny_dual
from safetensors.torch import load_file, save_file

from earwitness.encoders import (
    EmbeddingFrames,
    load_embedding_encoder,
    load_encoder,
    save_embedding_encoder,
)
from earwitness.encoders.base import EmbeddingEncoder, FrameEncoder
from earwitness.encoders.dual import DualConfig
from earwitness.errors import AudioError, CheckpointError, DataError
from earwitness.training.contrastive import DualTraining, recall
from earwitness.training.sources import collate

RATE = 16000
TEXTS = ["a dog barks", "rain falls and thunder roars"]


@pytest.fixture(scope="module")
def dual():
    return tiny_dual()


def clip(seconds: float, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise(seconds, seed))


def test_it_answers_both_protocols_and_gives_unit_vectors(dual):
    assert isinstance(dual, EmbeddingEncoder)
    assert isinstance(EmbeddingFrames(dual), FrameEncoder)
    vectors = torch.cat([dual.embed_audio([clip(0.5), clip(3.3, 1)]), dual.embed_text(TEXTS)])
    assert vectors.shape == (4, dual.dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))


def test_a_long_clip_is_the_renormalised_mean_of_its_windows(dual):
    waveform = clip(2.5)
    places = [0, RATE, RATE + RATE // 2]
    windows = dual.embed_audio([waveform[start : start + RATE] for start in places])
    mean = windows.mean(dim=0)
    torch.testing.assert_close(dual.embed_audio([waveform])[0], mean / mean.norm())


def test_a_clip_and_a_text_do_not_depend_on_their_neighbors(dual):
    clips = [clip(0.4), clip(1.0, 1), clip(2.2, 2)]
    alone = torch.cat([dual.embed_audio([c]) for c in clips])
    torch.testing.assert_close(dual.embed_audio(clips), alone, atol=1e-5, rtol=1e-5)
    alone = torch.cat([dual.embed_text([t]) for t in TEXTS])
    torch.testing.assert_close(dual.embed_text(TEXTS), alone, atol=1e-5, rtol=1e-5)


def test_masked_frames_do_not_count(dual):
    h = torch.randn(2, 6, 48, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6)[None, :] < torch.tensor([[6], [4]])
    expected = dual.embed_frames(h[1:, :4], mask[1:, :4])
    torch.testing.assert_close(dual.embed_frames(h, mask)[1:], expected)


def test_case_and_punctuation_of_a_text_do_not_count_but_words_do(dual):
    same = dual.embed_text(["A dog barks!", "a dog barks"])
    assert torch.equal(same[0], same[1])
    assert not torch.allclose(*dual.embed_text(TEXTS))


def test_a_blank_text_and_an_empty_clip_are_refused(dual):
    with pytest.raises(DataError, match="text 1 has no word: ' !'"):
        dual.embed_text(["a dog", " !"])
    with pytest.raises(AudioError, match="clip 0 has shape"):
        dual.embed_audio([torch.zeros(0)])


def test_windows_with_holes_are_refused():
    with pytest.raises(ValueError, match="stride_seconds 11"):
        DualConfig(stride_seconds=11.0)


def test_a_saved_encoder_comes_back_the_same(dual, tmp_path):
    save_embedding_encoder(dual, tmp_path / "dual")
    loaded = load_embedding_encoder(tmp_path / "dual")
    assert torch.equal(loaded.embed_audio([clip(1.5)]), dual.embed_audio([clip(1.5)]))
    assert torch.equal(loaded.embed_text(TEXTS), dual.embed_text(TEXTS))
    assert isinstance(load_encoder(tmp_path / "dual"), EmbeddingFrames)
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("model.safetensors", "no such file"),
        ("tokenizer.json", "tokenizer.json"),
        ("audio/model.safetensors", "no such file"),
        ("config.json", "no such file"),
    ],
)
def test_a_missing_file_is_refused(dual, tmp_path, file, expected):
    save_embedding_encoder(dual, tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CheckpointError, match=expected):
        load_embedding_encoder(tmp_path)


def test_a_missing_weight_and_an_unknown_kind_are_refused(dual, tmp_path):
    save_embedding_encoder(dual, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    first = sorted(state)[0]
    save_file({k: v for k, v in state.items() if k != first}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"'{first}' is missing"):
        load_embedding_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "magic"}))
    with pytest.raises(CheckpointError, match="unknown embedding encoder kind 'magic'"):
        load_embedding_encoder(tmp_path)


def test_the_loss_is_cross_entropy_over_cosines_without_equal_captions():
    model = DualTraining(tiny_dual(), 0.0).eval()
    texts = [*TEXTS, TEXTS[0]]
    h = torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(1))
    batch = {"frames": h, "texts": texts, "clip": torch.arange(3)}
    audio, text = model.vectors(batch)
    similarity = model.dual.scale * audio @ text.T
    losses = []
    for matrix in (similarity, similarity.T):
        for row, negatives in ((0, [1]), (1, [0, 2]), (2, [1])):
            own, others = matrix[row, row], matrix[row, negatives]
            losses.append(torch.logsumexp(torch.cat([own[None], others]), dim=0) - own)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(model(batch)["contrastive"], expected)


def test_training_moves_heads_text_and_temperature_but_not_the_frame_encoder():
    model = DualTraining(tiny_dual(), 0.3).train()
    batch = {"waveforms": torch.randn(2, RATE), "lengths": torch.tensor([RATE, RATE // 2])}
    model({**batch, "texts": TEXTS, "clip": torch.arange(2)})["contrastive"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".frames." not in name), name
    assert not model.dual.frames.training


def test_recall_counts_ranks_both_ways():
    audio = torch.eye(4).numpy()
    text = torch.eye(4)[[0, 1, 3, 2]].numpy()
    scores = recall(audio, text)
    assert scores["audio_to_text_r1"] == scores["text_to_audio_r1"] == 0.5
    assert scores["audio_to_text_r5"] == scores["recall"] == 1.0


def test_padding_of_cached_frames_is_not_heard(dual):
    rows = torch.randn(2, 6, 48, generator=torch.Generator().manual_seed(0)).numpy()
    items = [
        {"frames": frames, "text": text, "clip": index}
        for index, (frames, text) in enumerate(zip((rows[0], rows[1, :4]), TEXTS, strict=True))
    ]
    training = DualTraining(dual, 0.0).eval()
    together, _ = training.vectors(collate(items))
    alone, _ = training.vectors(collate(items[1:]))
    torch.testing.assert_close(together[1:], alone)
