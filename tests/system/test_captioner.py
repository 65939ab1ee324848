"""The whole system: its losses token by token, the guide in search, batches, saving and loading."""

import inspect
import io

import numpy as np
import pytest
import soundfile
import torch
from builders import noise, tiny_captioner

from earwitness.caption import Decoding
from earwitness.encoders.base import Frames
from earwitness.errors import CheckpointError, ConfigError
from earwitness.lamb.aligner import AlignerConfig, cs_token
from earwitness.lamb.baselines import LinearPrefixConfig, QFormerConfig
from earwitness.lamb.token_guide import TokenGuideConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.system.captioner import Batch, TorchCaptioner
from earwitness.system.decoder import DecoderConfig

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")

CAPTIONS = ["a dog barks", "rain falls and thunder roars", "a car passes by"]
CLIPS = [noise(2.0), noise(0.7, 1), noise(3.1, 2), noise(12.0, 3)]


@pytest.fixture(scope="module")
def captioner():
    return strong(tiny_captioner())


def strong(captioner: TorchCaptioner) -> TorchCaptioner:
    """Louder audio tokens: an untrained system would say the same whatever it hears."""
    with torch.no_grad():
        captioner.prefix.project.weight.mul_(30)
        if captioner.guide is not None:
            captioner.guide.beta.fill_(1.0)
    return captioner


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(9)[None, :] < torch.tensor([9, 4, 6])[:, None]
    return Batch(
        Frames(torch.randn(3, 9, 24, generator=generator), mask), CAPTIONS, torch.tensor([0, 1, 2])
    )


@torch.inference_mode()
def test_decode_and_guide_losses_count_caption_and_end_tokens_and_nothing_else(captioner):
    losses = captioner(batch())
    z_a = captioner.audio_tokens(batch().frames)
    bias = captioner.guide_bias(z_a)
    decoder = captioner.decoder
    before, after = decoder.prompt_ids()
    embed = decoder.model.get_input_embeddings()
    plain, guided = [], []
    for row, caption in enumerate(CAPTIONS):
        ids = decoder.tokenizer(caption, add_special_tokens=False).input_ids
        ids = [*ids, decoder.tokenizer.eos_token_id]
        for step, target in enumerate(ids):
            inputs = torch.cat(
                [
                    embed(torch.tensor(before)),
                    z_a.z[row],
                    embed(torch.tensor(after)),
                    embed(torch.tensor(ids[:step], dtype=torch.long)),
                ]
            )
            logits = decoder.model(inputs_embeds=inputs[None]).logits[0, -1]
            plain.append(-logits.log_softmax(0)[target])
            guided.append(-(logits + bias[row]).log_softmax(0)[target])
    assert float(losses["decode"]) == pytest.approx(float(torch.stack(plain).mean()), abs=1e-4)
    assert float(losses["guide"]) == pytest.approx(float(torch.stack(guided).mean()), abs=1e-4)


@torch.inference_mode()
def test_aligner_compares_with_caption_words_without_the_end_token(captioner):
    z_a = captioner.audio_tokens(batch().frames)
    rows = [captioner.decoder.tokenizer(c, add_special_tokens=False).input_ids for c in CAPTIONS]
    z_t = torch.zeros(3, max(map(len, rows)), 32)
    for row, ids in enumerate(rows):
        z_t[row, : len(ids)] = captioner.decoder.table[ids]
    lengths = torch.tensor([len(ids) for ids in rows])
    mask = torch.arange(z_t.shape[1])[None, :] < lengths[:, None]
    expected = cs_token(z_a.z, z_a.mask, z_t, mask, "median")
    torch.testing.assert_close(captioner(batch())["cs_token"], expected, atol=1e-4, rtol=1e-4)


def test_parts_left_out_leave_their_losses_out():
    names = set(tiny_captioner()(batch()))
    assert names == {"decode", "guide", "cs_global", "cs_token", "infonce"}
    assert set(tiny_captioner(guide=None)(batch())) == names - {"guide"}
    assert set(tiny_captioner(aligner=None)(batch())) == {"decode", "guide"}
    assert set(tiny_captioner(guide=None, aligner=None)(batch())) == {"decode"}


def test_gradients_reach_prefix_guide_aligner_and_lora_and_nothing_else():
    captioner = tiny_captioner(decoder=DecoderConfig(tune="lora")).train()
    sum(captioner(batch()).values()).backward()
    for name, parameter in captioner.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        expected = name.startswith(("prefix", "guide", "aligner")) or "lora_B" in name
        # lora_A stands still at the first step: lora_B starts at zero.
        assert moved == expected or "lora_A" in name, name


def test_a_new_system_speaks_at_the_norm_of_the_token_embeddings():
    captioner = tiny_captioner()
    z_a = captioner.audio_tokens(batch().frames).z.detach()
    table = captioner.decoder.table.norm(dim=1).mean()
    assert float(z_a.norm(dim=-1).mean()) == pytest.approx(float(table), rel=0.3)


@pytest.mark.parametrize("kind", ["two_stream", "linear", "q_former"])
def test_a_source_gets_the_same_caption_alone_as_in_a_batch(kind):
    prefix = {
        "two_stream": TwoStreamConfig(heads=2),
        "q_former": QFormerConfig(heads=2),
        "linear": LinearPrefixConfig(stack=4),
    }[kind]
    captioner = strong(tiny_captioner(prefix=prefix))
    sources = [(clip, 16000) for clip in CLIPS]
    alone = [captioner.caption(source) for source in sources]
    assert len({caption.score for caption in alone}) == len(CLIPS)
    for batch_size in (8, 3):
        together = captioner.caption_batch(sources, batch_size=batch_size)
        assert [c.text for c in together] == [c.text for c in alone]
        assert [c.score for c in together] == pytest.approx([c.score for c in alone], abs=1e-5)


def test_encoder_and_audio_tokens_of_a_clip_do_not_depend_on_its_batch(captioner):
    together = captioner.audio_tokens(captioner.encode(CLIPS))
    for row, clip in enumerate(CLIPS):
        alone = captioner.audio_tokens(captioner.encode([clip]))
        torch.testing.assert_close(alone.z[0], together.z[row], atol=1e-4, rtol=1e-4)


def test_sampled_captions_do_not_depend_on_the_other_sources(captioner):
    sources = [(clip, 16000) for clip in CLIPS]
    settings = Decoding(sample=True, max_new_tokens=8, seed=1)
    together = captioner.caption_batch(sources, decoding=settings)
    assert together == [captioner.caption(source, decoding=settings) for source in sources]
    assert together != captioner.caption_batch(
        sources, decoding=settings.model_copy(update={"seed": 2})
    )


def test_a_path_bytes_a_file_and_an_array_give_the_same_caption(captioner, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, CLIPS[0], 16000, subtype="FLOAT")
    expected = captioner.caption((CLIPS[0], 16000))
    assert captioner.caption(path) == expected
    assert captioner.caption(str(path)) == expected
    assert captioner.caption(path.read_bytes()) == expected
    assert captioner.caption(io.BytesIO(path.read_bytes())) == expected
    assert (expected.start_s, expected.end_s, expected.model) == (0.0, 2.0, "tiny")
    assert 0 < expected.score <= 1


def test_n_best_gives_a_list_best_first(captioner):
    settings = Decoding(max_new_tokens=6)
    found = captioner.n_best((CLIPS[0], 16000), 3, decoding=settings)
    scores = [caption.score for caption in found]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert captioner.caption((CLIPS[0], 16000), decoding=settings).text == found[0].text


def test_batch_takes_a_list_a_tuple_of_paths_and_a_generator(captioner, tmp_path):
    paths = [tmp_path / f"{number}.wav" for number in range(2)]
    for path, clip in zip(paths, CLIPS, strict=False):
        soundfile.write(path, clip, 16000, subtype="FLOAT")
    expected = [captioner.caption(path).text for path in paths]
    for sources in (paths, tuple(paths), (path for path in paths)):
        assert [c.text for c in captioner.caption_batch(sources)] == expected
    assert captioner.caption_batch([]) == []


def test_one_sound_and_several_are_not_mistaken_for_each_other(captioner, tmp_path):
    pair = (CLIPS[0], 16000)
    for several in ([pair], [], ("a.wav", "b.wav"), (one for one in [pair])):
        with pytest.raises(ConfigError, match="caption takes one sound, got a .*caption_batch"):
            unchecked(captioner.caption)(captioner, several)
    for one in (pair, "a.wav", b"RIFF"):
        with pytest.raises(ConfigError, match="caption_batch takes several sounds, got one"):
            unchecked(captioner.caption_batch)(captioner, one)


def unchecked(method):
    """The method without the type checks of the tests, as a user has it."""
    return inspect.unwrap(method.__func__)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_beta_zero_and_guide_strength_zero_leave_captions_as_without_a_guide(captioner, beam_size):
    sources = [(clip, 16000) for clip in CLIPS[:3]]
    settings = Decoding(beam_size=beam_size, max_new_tokens=8)
    without = TorchCaptioner(captioner.encoder, captioner.decoder, captioner.config, "tiny").eval()
    without.prefix, without.guide = captioner.prefix, None
    expected = [c.text for c in without.caption_batch(sources, decoding=settings)]
    off = settings.model_copy(update={"guide_strength": 0.0})
    assert [c.text for c in captioner.caption_batch(sources, decoding=off)] == expected
    assert [c.text for c in captioner.caption_batch(sources, decoding=settings)] != expected
    with torch.no_grad():
        captioner.guide.beta.fill_(0.0)
    found = [c.text for c in captioner.caption_batch(sources, decoding=settings)]
    with torch.no_grad():
        captioner.guide.beta.fill_(1.0)
    assert found == expected


@torch.inference_mode()
def test_a_caption_is_the_greedy_argmax_of_the_guided_training_logits(captioner):
    for clip in CLIPS[:2]:
        z_a = captioner.audio_tokens(captioner.encode([clip]))
        bias = captioner.guide_bias(z_a)
        ids: list[int] = []
        end = captioner.decoder.tokenizer.eos_token_id
        while len(ids) < 8 and end not in ids:
            probe = torch.tensor([[*ids, end]])
            texts = captioner.decoder.tokenize(["x"])
            texts = texts._replace(ids=probe, mask=torch.ones_like(probe).bool())
            guided = captioner.decoder(*z_a, texts)[0, -1] + bias[0]
            ids.append(int(guided.argmax()))
        text = captioner.decoder.tokenizer.decode(ids, skip_special_tokens=True)
        settings = Decoding(beam_size=1, max_new_tokens=8)
        found = captioner.caption((clip, 16000), decoding=settings)
        assert found.text == " ".join(text.split())


def test_every_guide_setting_captions():
    for metric in ("l2", "l1", "cosine"):
        for aggregation in ("mean", "max", "logsumexp"):
            guide = TokenGuideConfig(metric=metric, aggregation=aggregation)
            settings = Decoding(beam_size=1, max_new_tokens=2)
            captioner = tiny_captioner(guide=guide, decoding=settings)
            assert np.isfinite(captioner.caption((CLIPS[1], 16000)).score)


def test_what_is_saved_and_loaded_again_is_bitwise_the_same(captioner, tmp_path):
    captioner.card = {"license": "Apache-2.0"}
    captioner.save(tmp_path / "model")
    loaded = TorchCaptioner.load(tmp_path / "model")
    before, after = captioner.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (loaded.config, loaded.name, loaded.card) == (captioner.config, "tiny", captioner.card)
    sources = [(clip, 16000) for clip in CLIPS]
    assert loaded.caption_batch(sources) == captioner.caption_batch(sources)
    loaded.save(tmp_path / "again")
    for name in ("encoder/model.safetensors", "prefix.safetensors", "earwitness.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_half_precision_folders_load_to_float32(captioner, tmp_path):
    captioner.save(tmp_path / "half", torch.float16)
    loaded = TorchCaptioner.load(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert next(captioner.decoder.model.parameters()).dtype == torch.float32
    found = captioner.state_dict()
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, found[name], atol=1e-3, rtol=1e-3)


def test_merged_lora_gives_the_caption_of_the_unmerged_system(tmp_path):
    captioner = strong(tiny_captioner(decoder=DecoderConfig(tune="lora")))
    with torch.no_grad():
        for name, weight in captioner.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    plain = strong(tiny_captioner())
    sources = [(clip, 16000) for clip in CLIPS[:3]]
    unmerged = captioner.caption_batch(sources)
    assert [c.text for c in unmerged] != [c.text for c in plain.caption_batch(sources)]
    captioner.save(tmp_path / "merged")
    loaded = TorchCaptioner.load(tmp_path / "merged")
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    merged = loaded.caption_batch(sources)
    assert [c.text for c in merged] == [c.text for c in unmerged]
    assert [c.score for c in merged] == pytest.approx([c.score for c in unmerged], abs=1e-4)
    assert captioner.caption_batch(sources) == unmerged


def test_an_unknown_model_name_is_refused_with_the_known_ones():
    with pytest.raises(
        CheckpointError, match="'?no-such-model'?: no such model folder.*pocket-lamb"
    ):
        TorchCaptioner.load("no-such-model")


def test_aligner_settings_survive_saving(tmp_path):
    captioner = tiny_captioner(aligner=AlignerConfig(sigma=0.5, l2_normalize=True))
    captioner.save(tmp_path / "model")
    assert TorchCaptioner.load(tmp_path / "model").config.aligner == captioner.config.aligner
