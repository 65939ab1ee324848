"""Cached frames are the encoder's own, found again by content; LoRA on the encoder."""

import json
import threading

import numpy as np
import pytest
import soundfile
import torch
from builders import noise, tiny_captioner
from torch import nn

from earwitness.encoders.ced import CED, CEDConfig
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.encoders.frame import load_frame_encoder, save_frame_encoder
from earwitness.errors import ConfigError, DataError
from earwitness.system.decoder import LoraSize
from earwitness.training.encoder_lora import (
    QueryValueLora,
    add_lora,
    merged,
    train_lora,
)
from earwitness.training.feature_cache import FeatureCache, read_frames
from earwitness.training.lamb import LambTraining
from earwitness.training.source import Opening
from earwitness.training.sources import ManifestSource, collate

LORA = LoraSize(r=2, alpha=6, dropout=0.0)


def tiny_ced(seed=0):
    torch.manual_seed(seed)
    return CED(CEDConfig(embed_dim=24, depth=2, num_heads=2, outputdim=0)).eval()


def tiny_cnn(seed=0):
    torch.manual_seed(seed)
    sizes = CNNConfig(stem=4, channels=(8, 8, 16), blocks=(0, 0, 0), dim=24, dilations=(1,))
    return CNN(sizes).eval()


def clips(folder, lengths=(1.0, 0.6, 1.4)):
    """Recordings and a manifest of them; the folder and the manifest."""
    rows = ["audio,caption_1,caption_2"]
    for index, seconds in enumerate(lengths):
        soundfile.write(folder / f"{index}.wav", noise(seconds, index), 16000, subtype="FLOAT")
        rows.append(f"{index}.wav,sound {index} is heard,sound {index} again")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


def source(manifest, **changes):
    return ManifestSource(kind="manifest", train=manifest, validation=manifest, **changes)


@pytest.mark.parametrize("make", [tiny_ced, tiny_cnn], ids=["ced", "cnn"])
def test_cached_frames_are_those_of_the_encoder(tmp_path, make):
    encoder, manifest = make(), clips(tmp_path)
    plain = source(manifest).open(Opening(None, 16000, tmp_path, 0))
    cached = source(manifest, cache=True).open(Opening(None, 16000, tmp_path, 0, encoder))
    model = LambTraining(tiny_captioner(), 0.0, False)
    model.captioner.encoder = encoder
    with torch.no_grad():
        for epoch in (0, 1):
            keys = [(i, epoch) for i in range(3)]
            h, mask = model.frames(collate([plain.train[key] for key in keys]))
            kept, kept_mask = model.frames(collate([cached.train[key] for key in keys]))
            assert torch.equal(mask, kept_mask)
            torch.testing.assert_close(kept[mask], h[mask], atol=2e-3, rtol=2e-3)
            assert [plain.train[k]["text"] for k in keys] == [cached.train[k]["text"] for k in keys]


def test_frames_are_made_once_and_read_memory_mapped(tmp_path, monkeypatch):
    encoder, manifest = tiny_cnn(), clips(tmp_path)
    files = [manifest.parent / f"{i}.wav" for i in range(3)]
    places = FeatureCache(tmp_path / "features", encoder, 10.0).fill(files, encoder, batch_size=2)
    assert isinstance(read_frames(places[0]), np.memmap)
    monkeypatch.setattr("earwitness.audio.load", lambda *_: 1 / 0)
    monkeypatch.setattr("earwitness.training.feature_cache.sha256_of", lambda _: 1 / 0)
    assert FeatureCache(tmp_path / "features", encoder, 10.0).fill(files, encoder) == places


def test_the_key_is_content_encoder_weights_settings_and_cut(tmp_path):
    encoder, manifest = tiny_cnn(), clips(tmp_path)
    files = [manifest.parent / "0.wav"]

    def place(by, seconds=10.0):
        return FeatureCache(tmp_path / "features", by, seconds).fill(files, by)[0]

    first = place(encoder)
    assert place(tiny_cnn()) == first
    assert place(tiny_cnn(seed=1)) != first
    assert place(encoder, 0.5) != first
    assert len(read_frames(place(encoder, 0.5))) < len(read_frames(first))
    moved = tmp_path / "other name.wav"
    moved.write_bytes(files[0].read_bytes())
    files = [moved]
    assert place(encoder) == first
    soundfile.write(moved, noise(1.0, 9), 16000, subtype="FLOAT")
    assert place(encoder) != first
    settings = encoder.config.model_copy(
        update={"log_mel": encoder.config.log_mel.model_copy(update={"top_db": 60.0})}
    )
    encoder.config = settings
    assert place(encoder).parent.parent != first.parent.parent


def test_two_writers_at_once_leave_whole_files(tmp_path):
    encoder, manifest = tiny_cnn(), clips(tmp_path, (0.5,) * 6)
    files = [manifest.parent / f"{i}.wav" for i in range(6)]
    found = []

    def fill():
        found.append(FeatureCache(tmp_path / "features", encoder, 10.0).fill(files, encoder, 1))

    writers = [threading.Thread(target=fill) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert found[0] == found[1]
    assert all(len(read_frames(place)) for place in found[0])
    assert not list((tmp_path / "features").rglob(".*.npy.*"))
    assert json.loads((tmp_path / "features" / "files.json").read_text())


def test_a_damaged_file_is_named(tmp_path):
    encoder, manifest = tiny_cnn(), clips(tmp_path)
    cached = source(manifest, cache=True).open(Opening(None, 16000, tmp_path, 0, encoder))
    place = cached.train.cached[1]
    place.write_bytes(place.read_bytes()[:40])
    with pytest.raises(DataError, match=f"{place.name}: cached frames are missing or damaged"):
        cached.train[(1, 0)]


def test_clips_that_are_cut_at_random_are_not_cached(tmp_path):
    manifest = clips(tmp_path)
    wanted = source(manifest, cache=True, seconds=1.2)
    with pytest.raises(ConfigError, match=r"clip '2.wav' lasts 1.4 s .* source.crop = 'start'"):
        wanted.open(Opening(None, 16000, tmp_path, 0, tiny_cnn()))
    first = source(manifest, cache=True, seconds=1.2, crop="start")
    kept = first.open(Opening(None, 16000, tmp_path, 0, tiny_cnn())).train[(2, 0)]["frames"]
    soundfile.write(tmp_path / "2.wav", noise(1.4, 2)[: round(1.2 * 16000)], 16000, subtype="FLOAT")
    short = first.open(Opening(None, 16000, tmp_path, 0, tiny_cnn())).train[(2, 0)]["frames"]
    np.testing.assert_array_equal(kept, short)


def test_a_cache_without_a_frozen_encoder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="source.cache keeps the frames of a frozen encoder"):
        source(clips(tmp_path), cache=True).open(Opening(None, 16000, tmp_path, 0))


def test_lengths_are_those_of_the_cut_clips(tmp_path):
    data = source(clips(tmp_path), seconds=1.2).open(Opening(None, 16000, tmp_path, 0)).train
    np.testing.assert_allclose(data.lengths, [1.0, 0.6, 1.2])


def test_adapters_equal_those_of_peft_on_separate_maps_and_leave_keys_alone():
    """peft on three ordinary maps with the same weights gives the same queries, keys and values."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    fused = nn.Linear(12, 36)
    ours = QueryValueLora(fused, LORA)
    for up in ours.up:
        nn.init.normal_(up)
    names = ("q_proj", "k_proj", "v_proj")
    theirs = nn.ModuleDict({name: nn.Linear(12, 12) for name in names})
    for row, name in enumerate(names):
        theirs[name].weight.data = fused.weight.data.chunk(3)[row].clone()
        theirs[name].bias.data = fused.bias.data.chunk(3)[row].clone()
    settings = LoraConfig(r=2, lora_alpha=6, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    tuned = get_peft_model(theirs, settings).base_model.model
    for place, name in enumerate(("q_proj", "v_proj")):
        tuned[name].lora_A["default"].weight.data = ours.down[place].data
        tuned[name].lora_B["default"].weight.data = ours.up[place].data
    x = torch.randn(2, 5, 12)
    q, k, v = ours(x).chunk(3, dim=-1)
    torch.testing.assert_close(
        torch.cat([q, k, v], -1), torch.cat([tuned[n](x) for n in names], -1)
    )
    assert torch.equal(k, fused(x).chunk(3, dim=-1)[1])
    torch.testing.assert_close(ours.merged()(x), ours(x))
    assert torch.equal(ours.merged().weight[12:24], fused.weight[12:24])


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained():
    encoder, twin = tiny_ced(), tiny_ced()
    add_lora(encoder, LORA)
    waveforms, lengths = torch.from_numpy(noise(1.0))[None], torch.tensor([16000])
    assert torch.equal(encoder(waveforms, lengths).h, twin(waveforms, lengths).h)
    encoder(waveforms, lengths).h.sum().backward()
    learns = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert learns == {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert len(learns) == 2 * 4
    assert all(".qkv.down." in name or ".qkv.up." in name for name in learns)


def test_tuned_encoders_are_saved_merged(tmp_path):
    encoder = tiny_ced()
    add_lora(encoder, LORA)
    for name, parameter in encoder.named_parameters():
        if ".up." in name:
            nn.init.normal_(parameter, std=0.3)
    with merged(encoder):
        save_frame_encoder(encoder, tmp_path)
    given = torch.from_numpy(noise(1.0))[None], torch.tensor([16000])
    torch.testing.assert_close(load_frame_encoder(tmp_path)(*given).h, encoder(*given).h)
    assert isinstance(encoder.blocks[0].attn.qkv, QueryValueLora)


def test_dropout_is_in_the_adapters_alone():
    encoder = tiny_ced()
    add_lora(encoder, LoraSize())
    train_lora(encoder.eval(), True)
    training = {name for name, module in encoder.named_modules() if module.training}
    assert training == {f"blocks.{place}.attn.qkv.dropout" for place in (0, 1)}


def test_losses_reach_the_adapters_and_only_ced_takes_them():
    captioner = tiny_captioner()
    with pytest.raises(ConfigError, match="for a CED encoder, this is a CNN"):
        add_lora(captioner.encoder, LORA)
    captioner.encoder = tiny_ced()
    add_lora(captioner.encoder, LORA)
    model = LambTraining(captioner, 0.0, False).train()
    items = [{"waveform": noise(0.5, i), "text": f"sound {i}", "clip": i} for i in range(2)]
    torch.stack(list(model(collate(items)).values())).sum().backward()
    ups = [p for name, p in captioner.encoder.named_parameters() if ".up." in name]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ups)


def test_channel_dropout_hides_a_number_of_the_frames_over_the_whole_clip():
    model = LambTraining(tiny_captioner(), 0.0, False, channel_dropout=0.5)
    dim = model.captioner.encoder.dim
    items = [{"frames": np.ones((9, dim), np.float32), "text": "rain", "clip": i} for i in range(4)]
    heard = []
    model.captioner.register_forward_pre_hook(lambda _, args: heard.append(args[0].frames.h))
    for mode in (True, False):
        model.train(mode)(collate(items))
    dropped, whole = heard
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))  # the same over all frames
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(whole, torch.ones_like(whole))
