"""Diffusion-Link end to end on synthetic sounds, and the parts that it adds to a captioner."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import noise
from link_parts import SOURCE, bridge_recipe, contrastive_recipe, link_recipe, untrained_link

from earwitness import Caption, audio
from earwitness.captioning.rerank import Reranker
from earwitness.data.synthetic import RATE, synthetic_clip
from earwitness.encoders import load_embedding_encoder, one_frame
from earwitness.errors import CheckpointError, ConfigError
from earwitness.link import NoBridgeConfig, bridge_kinds, load_bridge, save_bridge
from earwitness.models import names as pocket
from earwitness.system.captioner import TorchCaptioner
from earwitness.training import bridge, link
from earwitness.training.embeddings import Pairs, open_embeddings
from earwitness.training.stages import read_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
EXAMPLES = RECIPES.parent / "examples"
HELDOUT = [synthetic_clip(SOURCE["clips"] + i, 0, SOURCE["seconds"]) for i in range(20)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Contrastive training, then the bridge, then the captioner that never hears audio."""
    folder = tmp_path_factory.mktemp("runs")
    contrastive_recipe().prepare(folder / "clap")()
    bridge_recipe(folder).prepare(folder / "bridge")()
    link_recipe(folder, "zero_shot").prepare(folder / "link")()
    return folder


def right(captioner: TorchCaptioner) -> float:
    """Share of held-out sounds whose caption is true."""
    captions = captioner.caption_batch([(clip.waveform, RATE) for clip in HELDOUT])
    pairs = zip(captions, HELDOUT, strict=True)
    return sum(caption.text == clip.caption for caption, clip in pairs) / len(HELDOUT)


def test_a_captioner_that_never_heard_audio_captions_new_sounds(runs):
    captioner = TorchCaptioner.load(runs / "link" / "best")
    assert captioner.config.system == "diffusion-link"
    assert right(captioner) >= 0.8
    captioner.prefix.projector.layers[0].weight.data.zero_()
    assert right(captioner) <= 0.4


def test_the_bridge_brings_sounds_nearer_to_their_captions(runs):
    pairs = open_embeddings(bridge_recipe(runs).source, runs / "clap/best/encoder", runs).test
    bridged = bridge.score(load_bridge(runs / "bridge/best/bridge"), pairs)
    raw = bridge.score(NoBridgeConfig(dim=16).build(), pairs)
    assert bridged["paired_cosine"] > raw["paired_cosine"] + 0.05


def test_the_bridge_of_a_trained_captioner_is_the_one_that_was_frozen(runs):
    inside = TorchCaptioner.load(runs / "link/best").prefix.bridge
    trained = load_bridge(runs / "bridge/best/bridge")
    assert inside.config == trained.config
    for name, weight in trained.state_dict().items():
        assert torch.equal(inside.state_dict()[name], weight), name


def test_zero_shot_training_never_sees_audio(runs, tmp_path, monkeypatch):
    seen = []
    forward = link.LinkTraining.forward

    def watched(self, batch):
        seen.append(bool(torch.isnan(batch["audio"]).all()))
        return forward(self, batch)

    monkeypatch.setattr(link.LinkTraining, "forward", watched)
    monkeypatch.setattr(link, "validation", lambda *_: {"decode": 0.0})
    short = {"fit": {"epochs": 1, "batch_size": 40, "save_every": 0}}
    (runs / "short").mkdir(exist_ok=True)
    link_recipe(runs, "zero_shot", **short).prepare(runs / "short" / "z")()
    assert seen
    assert all(seen)


def test_supervised_training_learns_from_bridged_audio(runs):
    captioner = TorchCaptioner.load(runs / "link/best")
    training = link.LinkTraining(captioner, "supervised").eval()
    pairs = open_embeddings(bridge_recipe(runs).source, runs / "clap/best/encoder", runs).test
    batch = link.collate_pairs([link.PairItems(pairs)[(i, 0)] for i in range(4)])
    spoiled = {**batch, "text": batch["text"] * float("nan")}
    assert torch.isfinite(training(spoiled)["decode"])
    silent = {**batch, "audio": batch["audio"] * float("nan")}
    assert not torch.isfinite(training(silent)["decode"])


def test_the_cache_of_embeddings_holds_what_the_encoder_gives(runs):
    encoder = runs / "clap/best/encoder"
    splits = open_embeddings(bridge_recipe(runs).source, encoder, runs)
    assert (len(splits.train.text), len(splits.validation.text), len(splits.test.text)) == (
        SOURCE["clips"],
        SOURCE["heldout_clips"] // 2,
        SOURCE["heldout_clips"] // 2,
    )
    dual = load_embedding_encoder(encoder)
    clip = HELDOUT[3]
    expected = dual.embed_audio([torch.from_numpy(clip.waveform)])[0]
    torch.testing.assert_close(torch.from_numpy(splits.test.audio[1]), expected)
    assert splits.test.captions[1] == clip.caption


def test_halves_of_pairs_keep_captions_with_their_clips():
    owner = np.array([0, 0, 1, 2, 2, 3])
    vectors = np.arange(4, dtype=np.float32)[:, None]
    pairs = Pairs(vectors, owner[:, None].astype(np.float32), owner, list("aabccd"))
    odd = pairs.half(odd=True)
    assert odd.captions == ["b", "d"]
    assert odd.audio[odd.owner].ravel().tolist() == odd.text.ravel().tolist() == [1.0, 3.0]
    assert pairs.half(odd=False).owner.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", bridge_kinds())
def test_a_saved_system_captions_the_same_behind_every_bridge(kind, tmp_path):
    captioner = untrained_link(kind)
    captioner.save(tmp_path / "model")
    loaded = TorchCaptioner.load(tmp_path / "model")
    source = (noise(1.7), RATE)
    assert loaded.caption(source) == captioner.caption(source)
    save_bridge(captioner.prefix.bridge, tmp_path / "bridge")
    e = torch.randn(3, 16)
    assert torch.equal(load_bridge(tmp_path / "bridge")(e), captioner.prefix.bridge(e))


def test_one_seed_gives_one_caption_whatever_the_neighbors(tmp_path):
    captioner = untrained_link()
    sources = [(noise(seconds, seed), RATE) for seed, seconds in enumerate((0.7, 2.4, 1.0))]
    together = captioner.caption_batch(sources)
    assert [c.text for c in together] == [captioner.caption(s).text for s in sources]


def test_gradients_reach_projector_and_language_model_and_not_the_bridge():
    training = link.LinkTraining(untrained_link().train(), "zero_shot")
    batch = {
        "audio": torch.randn(2, 16),
        "text": torch.randn(2, 16),
        "captions": ["a dog barks", "rain falls"],
        "clip": torch.arange(2),
    }
    training(batch)["decode"].backward()
    for name, parameter in training.captioner.named_parameters():
        learns = name.startswith(("prefix.projector", "decoder"))
        assert (parameter.grad is not None) == learns, name


def test_fresh_noise_differs_between_visits_and_follows_torchs_seed():
    prefix = untrained_link().prefix
    frames = one_frame(torch.randn(2, 16))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        generator = link.fresh_generator()
        drawn.append(prefix(*frames, side="text", generator=generator)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package's models: a LAMB folder whose encoder the link may share."""
    monkeypatch.setattr(pocket.resources, "files", lambda _: tmp_path)
    untrained_link().save(tmp_path / "models" / "pocket-link")
    audio = tmp_path / "models" / "pocket-link" / "encoder" / "audio"
    shutil.copytree(audio, tmp_path / "models" / "pocket-lamb" / "encoder")
    return tmp_path / "models"


def test_a_shared_part_is_stored_once_and_captions_stay(package):
    source = (noise(1.7), RATE)
    before = TorchCaptioner.load(package / "pocket-link").caption(source)
    pocket.share_part(package / "pocket-link", "encoder/audio", "pocket-lamb", "encoder")
    assert not (package / "pocket-link" / "encoder" / "audio").exists()
    assert TorchCaptioner.load("pocket-link").caption(source) == before


def test_other_weights_are_neither_shared_nor_taken(package):
    weights = package / "pocket-lamb" / "encoder" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="do not hold the same weights"):
        pocket.share_part(package / "pocket-link", "encoder/audio", "pocket-lamb", "encoder")
    weights.write_bytes(good)
    pocket.share_part(package / "pocket-link", "encoder/audio", "pocket-lamb", "encoder")
    weights.write_bytes(good[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="missing or have changed"):
        TorchCaptioner.load("pocket-link")


@pytest.mark.parametrize(
    "reference",
    [
        "../../secret",
        {"model": "/etc", "part": "encoder"},
        {"model": "pocket-lamb", "part": "../../../x"},
        {"model": ["pocket-lamb"], "part": "encoder"},
        3,
    ],
)
def test_a_reference_out_of_the_package_is_refused(package, reference):
    path = package / "pocket-link" / "earwitness.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "shared": {"encoder/audio": reference}}))
    with pytest.raises(CheckpointError, match="expected a model"):
        TorchCaptioner.load("pocket-link")


def test_a_bridge_of_another_width_is_refused(runs, tmp_path):
    save_bridge(NoBridgeConfig(dim=8).build(), tmp_path / "narrow")
    recipe = link_recipe(runs, "zero_shot", bridge=tmp_path / "narrow")
    with pytest.raises(ConfigError, match="embeddings of 8 numbers.* gives 16"):
        recipe.prepare(runs / "refused")


@pytest.mark.parametrize("name", ["clap", "bridge", "link_zeroshot", "link_supervised"])
def test_the_pocket_recipes_are_read(name):
    recipe = read_recipe(RECIPES / f"pocket_{name}.toml")
    assert recipe.source.kind == "scenes"


def test_the_two_protocols_differ_in_nothing_else():
    zero_shot, supervised = (
        read_recipe(RECIPES / f"pocket_link_{name}.toml") for name in ("zeroshot", "supervised")
    )
    assert supervised.protocol == "supervised"
    assert supervised.model_copy(update={"protocol": "zero_shot"}) == zero_shot


def test_shipped_model_hears_through_its_bridge_and_shares_the_encoder():
    folder = pocket.model_folder("pocket-link")
    assert not (folder / "encoder" / "audio").exists()
    captioner = TorchCaptioner.load("pocket-link")
    siren = EXAMPLES / "siren.flac"
    first = captioner.caption(siren)
    assert "siren" in first.text
    assert captioner.caption(siren) == first
    assert "clock" in captioner.caption(EXAMPLES / "clock.flac").text


def test_shipped_model_reranks_by_name():
    reranker = Reranker.load("pocket-link", weight=1.0)
    texts = ["a dog barks", "a clock ticking", "a siren wails"]
    row = [Caption(text, 0.5, 0.0, 10.0, "any") for text in texts]
    for name, wanted in (("siren", "a siren wails"), ("clock", "a clock ticking")):
        waveform = audio.load(EXAMPLES / f"{name}.flac", 16000)
        assert reranker([waveform], 16000, [row])[0][0].text == wanted
