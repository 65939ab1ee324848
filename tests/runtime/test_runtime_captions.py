"""Captions without torch against those of the torch captioner of the same folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import noise, tiny_captioner
from link_parts import untrained_link

from earwitness.caption import Decoding
from earwitness.captioning.captioner import Captioner, Explains
from earwitness.captioning.rerank import Reranker
from earwitness.errors import ConfigError, MissingDependencyError
from earwitness.export.folder import write_graphs
from earwitness.lamb.baselines import LinearPrefixConfig
from earwitness.models.names import model_folder
from earwitness.runtime import RuntimeCaptioner
from earwitness.system.captioner import TorchCaptioner

HEAVY = ("torch", "transformers", "safetensors", "einops", "scipy", "pandas", "matplotlib")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LENGTHS = (0.01, 0.3, 1.0, 2.5, 2.5, 12.5)
"""seconds: below a window, several in one batch, beyond a chunk of the encoder"""

SETTINGS = {
    "shipped": Decoding(beam_size=4, length_penalty=0.5, repeat_content_words=False),
    "n_best": Decoding(n_best=5, beam_size=2),
    "greedy": Decoding(beam_size=1),
    "greedy, no repeats": Decoding(beam_size=1, repeat_content_words=False, no_repeat_ngram=2),
    "longer is better": Decoding(beam_size=3, length_penalty=2.0),
    "shorter is better": Decoding(beam_size=3, length_penalty=-1.0),
    "penalty": Decoding(beam_size=3, repetition_penalty=1.7),
    "no repeated pairs": Decoding(beam_size=3, no_repeat_ngram=2),
    "no repeated words": Decoding(beam_size=3, no_repeat_ngram=1),
    "greedy penalty": Decoding(beam_size=1, repetition_penalty=1.7),
    "strong guide": Decoding(guide_strength=20.0),
    "no guide": Decoding(guide_strength=0.0),
    "one token": Decoding(max_new_tokens=1),
}


load = Captioner.load


def exported(captioner: TorchCaptioner, folder: Path) -> tuple[TorchCaptioner, RuntimeCaptioner]:
    """A captioner as its folder gives it, and its graphs."""
    captioner.save(folder)
    write_graphs(folder)
    return TorchCaptioner.load(folder), RuntimeCaptioner.load(folder, threads=1)


@pytest.fixture(scope="module")
def lamb(tmp_path_factory) -> tuple[TorchCaptioner, RuntimeCaptioner]:
    captioner = tiny_captioner()
    # An untrained model never ends a sentence; a large end token makes ends of all lengths.
    with torch.no_grad():
        captioner.decoder.model.get_input_embeddings().weight.mul_(4.0)
    return exported(captioner, tmp_path_factory.mktemp("models") / "lamb")


def waveforms() -> list[np.ndarray]:
    return [noise(seconds, seed) for seed, seconds in enumerate(LENGTHS)]


def check_same(first: TorchCaptioner, second: RuntimeCaptioner, settings: Decoding) -> None:
    """Same texts, scores to 1e-5."""
    wanted = first.caption_waveforms(waveforms(), settings)
    found = second.caption_waveforms(waveforms(), settings)
    for one, other in zip(wanted, found, strict=True):
        assert [c.text for c in other] == [c.text for c in one]
        assert [c.score for c in other] == pytest.approx([c.score for c in one], rel=1e-4, abs=1e-9)
        assert [c.end_s for c in other] == [c.end_s for c in one]


@pytest.mark.filterwarnings("ignore:Passing .* with .inputs_embeds.:UserWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_runtime_captions_are_those_of_torch(lamb, name: str) -> None:
    settings = SETTINGS[name].model_copy(
        update={"max_new_tokens": min(12, SETTINGS[name].max_new_tokens)}
    )
    check_same(*lamb, settings)


@pytest.mark.parametrize("kind", ["diffusion_link", "none"])
def test_runtime_link_captions_are_those_of_torch(tmp_path: Path, kind: str) -> None:
    first, second = exported(untrained_link(kind), tmp_path / "link")
    check_same(first, second, Decoding(beam_size=3, max_new_tokens=8))
    assert second.has_bridge == (kind != "none")
    effect, wanted = second.bridge_effect(noise(1.0)), first.bridge_effect(noise(1.0))
    if effect is None or wanted is None:
        assert effect is wanted
        return
    assert [c.text for c in effect.captions] == [c.text for c in wanted.captions]
    assert effect.embeddings == pytest.approx(wanted.embeddings, abs=1e-5)


def test_runtime_prompts_of_unlike_length_share_a_batch(tmp_path: Path) -> None:
    captioner = tiny_captioner(prefix=LinearPrefixConfig(stack=2), guide=None)
    check_same(
        *exported(captioner, tmp_path / "linear"),
        Decoding(beam_size=3, max_new_tokens=8),
    )


def test_runtime_captions_do_not_depend_on_the_batch(lamb) -> None:
    _, runtime = lamb
    for settings in (Decoding(max_new_tokens=8), Decoding(max_new_tokens=8, sample=True, n_best=2)):
        together = runtime.caption_waveforms(waveforms(), settings)
        for waveform, row in zip(waveforms(), together, strict=True):
            alone = runtime.caption_waveforms([waveform], settings)[0]
            assert [c.text for c in row] == [c.text for c in alone]


def test_runtime_seed_decides_what_is_drawn(lamb) -> None:
    _, runtime = lamb
    texts = {
        seed: [
            runtime.caption_waveforms(
                [noise(1.0)], Decoding(sample=True, seed=seed, n_best=3, max_new_tokens=8)
            )
            for _ in range(2)
        ]
        for seed in (0, 1)
    }
    assert texts[0][0] == texts[0][1] != texts[1][0]
    scores = [c.score for c in texts[0][0][0]]
    assert scores == sorted(scores, reverse=True)


def test_runtime_is_a_captioner(lamb) -> None:
    first, runtime = lamb
    assert isinstance(runtime, Captioner)
    assert isinstance(runtime, Explains)
    assert runtime.sample_rate == first.sample_rate
    assert runtime.decoding == first.decoding
    assert runtime.max_seconds == first.max_seconds
    words, wanted = (one.guide_words(noise(1.0), 5) for one in (runtime, first))
    assert [word for word, _ in words] == [word for word, _ in wanted]
    with runtime.precision("fp32"):
        pass
    with pytest.raises(ConfigError, match="bf16"), runtime.precision("bf16"):
        pass


def test_half_precision_is_computed_by_torch_or_names_the_extra(lamb, monkeypatch) -> None:
    first, runtime = lamb
    folder = runtime.folder
    made = load(folder)
    with first.precision("bf16"):
        wanted = first.caption_waveforms(waveforms())
    with made.precision("bf16"):
        found = made.caption_waveforms(waveforms())
    assert found == wanted
    assert made.caption_waveforms(waveforms()) == runtime.caption_waveforms(waveforms())
    monkeypatch.setattr("earwitness.captioning.captioner.find_spec", lambda name: None)
    bare = load(folder)
    with pytest.raises(MissingDependencyError, match="half precision .* needs torch: .*train"):
        bare.precision("bf16").__enter__()


def test_diffusion_link_reads_text_by_torch_or_names_the_extra(tmp_path, monkeypatch) -> None:
    first, runtime = exported(untrained_link(), tmp_path / "link")
    assert runtime.audio_text is None
    made = load(tmp_path / "link")
    assert isinstance(made, Explains)
    texts = ["a dog barks", "rain falls"]
    assert np.array_equal(made.audio_text.embed_text(texts), first.audio_text.embed_text(texts))
    sounds = [noise(1.0)]
    assert np.array_equal(made.audio_text.embed_audio(sounds), first.audio_text.embed_audio(sounds))
    monkeypatch.setattr("earwitness.captioning.captioner.find_spec", lambda name: None)
    assert load(tmp_path / "link").audio_text is None
    with pytest.raises(MissingDependencyError, match="reranking by .* needs torch: .*train"):
        Reranker.load(tmp_path / "link")


@pytest.mark.parametrize("model", ["pocket-lamb", "pocket-link"])
def test_shipped_graphs_say_what_torch_says(model: str) -> None:
    files = sorted(EXAMPLES.glob("*.flac"))
    with_torch, runtime = TorchCaptioner.load(model), RuntimeCaptioner.load(model, threads=1)
    wanted, found = with_torch.caption_batch(files), runtime.caption_batch(files)
    assert [c.text for c in found] == [c.text for c in wanted]
    assert [c.score for c in found] == pytest.approx([c.score for c in wanted], abs=1e-5)


@pytest.mark.parametrize("model", ["pocket-lamb", "pocket-link"])
def test_shipped_graphs_are_those_that_export_writes(model: str, tmp_path: Path) -> None:
    folder = model_folder(model)
    ranges = json.loads((folder / "runtime.json").read_text())["ranges"]
    write_graphs(folder, tmp_path, [(low, high) for low, high in ranges])
    assert (tmp_path / "encoder_int8.onnx").is_file()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


@pytest.mark.parametrize("model", ["pocket-lamb", "pocket-link"])
def test_caption_command_never_imports_torch(model: str) -> None:
    code = (
        "import sys\nfrom earwitness.cli import app\n"
        f"try: app(['caption', {str(EXAMPLES / 'storm.flac')!r}, '--model', {model!r}, '-q'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, loaded = run.stdout.splitlines()
    assert "rain" in text
    assert loaded == "[]"


def test_caption_command_writes_nothing_and_reports_nothing(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {name: os.environ[name] for name in os.environ if "TELEMETRY" not in name} | own
    argv = [sys.executable, "-m", "earwitness", "caption", str(EXAMPLES / "storm.flac")]
    subprocess.run(argv, env=environment, capture_output=True, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_captioner_without_graphs_is_torch(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "tiny")
    assert isinstance(load(tmp_path / "tiny"), TorchCaptioner)
    write_graphs(tmp_path / "tiny")
    assert isinstance(load(tmp_path / "tiny"), RuntimeCaptioner)


def test_model_that_needs_torch_says_so(tmp_path: Path, monkeypatch) -> None:
    tiny_captioner().save(tmp_path / "tiny")
    monkeypatch.setattr("earwitness.captioning.captioner.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs torch: .*pip install .*train"):
        load(tmp_path / "tiny")
