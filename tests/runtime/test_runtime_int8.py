"""The encoder in 8-bit integers: near the float one, and chosen by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from builders import noise, tiny_captioner
from link_parts import untrained_link
from safetensors.torch import save_file
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.errors import CheckpointError, ConfigError
from earwitness.export.arithmetic import Int8, Range
from earwitness.export.folder import ranges_of, write_graphs
from earwitness.export.graph import Graph
from earwitness.runtime import RuntimeCaptioner
from earwitness.runtime.encoder import Encoder
from earwitness.runtime.folder import ModelFiles
from earwitness.runtime.sessions import Sessions, computed
from earwitness.runtime.weights import WeightFile
from earwitness.system.captioner import TorchCaptioner

NAME = "encoder_int8.onnx"
FILE = "encoder/model.safetensors"


def sounds(count: int = 20) -> list[np.ndarray]:
    """Noises of unlike level and length, at 16 kHz."""
    return [noise(0.3 + 0.1 * n, n) * (0.1 + 0.1 * n) for n in range(count)]


def with_blocks() -> TorchCaptioner:
    """A tiny captioner whose encoder has every kind of layer, with trained norms."""
    captioner = tiny_captioner()
    torch.manual_seed(1)
    config = CNNConfig(stem=16, channels=(16, 32, 32), blocks=(1, 0, 2), dim=24, dilations=(1, 2))
    encoder = CNN(config)
    for part in encoder.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.5, 0.5)
    captioner.encoder = encoder.train()
    loud = torch.from_numpy(np.stack([sound[:4800] for sound in sounds(8)]))
    for _ in range(30):
        encoder(loud, torch.full((8,), 4800))
    captioner.encoder.eval()
    return captioner


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with_blocks().save(folder)
    write_graphs(folder, ranges=ranges_of(folder, sounds()))
    return folder


def test_int8_frames_are_near_those_of_torch(made: Path) -> None:
    files = ModelFiles.of(made)
    runtime, first = Encoder(files, Sessions(files.places, 1)), TorchCaptioner.load(made)
    for sound in (*sounds(4), noise(10.5, 3)):
        wanted = first.encode([sound]).h[0].numpy()
        assert runtime.frames([sound])[0] == pytest.approx(wanted, abs=1e-4)
        with runtime.computing("int8"):
            found = runtime.frames([sound])[0]
        cosine = (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert 1e-6 < 1 - cosine < 0.01


def test_int8_frames_do_not_depend_on_the_batch(made: Path) -> None:
    files = ModelFiles.of(made)
    runtime = Encoder(files, Sessions(files.places, 1))
    clips = [noise(1.0, n) for n in range(3)]
    with runtime.computing("int8"):
        for clip, together in zip(clips, runtime.frames(clips), strict=True):
            assert runtime.frames([clip])[0] == pytest.approx(together, abs=1e-5)


def test_int8_convolution_and_addition_are_those_of_whole_numbers(tmp_path: Path) -> None:
    """A residual block against sums of integers in numpy."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 3, 3, 3)).astype(np.float32)
    shift = rng.standard_normal(3).astype(np.float32)
    state = {"conv.weight": weight, "norm.bias": shift}
    state |= {f"norm.{part}": np.ones(3, np.float32) for part in ("weight", "running_var")}
    state["norm.running_mean"] = np.zeros(3, np.float32)
    save_file({name: torch.from_numpy(one) for name, one in state.items()}, tmp_path / "w")
    graph = Graph("block", {FILE: WeightFile(tmp_path / "w")})
    body = Int8(graph, FILE, [Range(0.0, 2.0), Range(-9.0, 8.0), Range(0.0, 10.0)])
    x = body.enter(graph.input("waveform", "float", ["clips", 3, "frames", "bands"]))
    y = body.leave(body.add(x, body.conv(x, "conv", "norm", relu=False)))
    graph.output(y, "y", ["clips", 3, "frames", "bands"])
    session = Sessions({FILE: tmp_path / "w"}, 1).of(graph.model().SerializeToString(), tmp_path)
    sound = rng.uniform(0, 2, (1, 3, 4, 5)).astype(np.float32)
    found = computed(session, ["y"], {"waveform": sound})[0]

    folded = weight / np.sqrt(np.float32(1 + 1e-5))
    steps = np.abs(folded).max((1, 2, 3)) / 63
    whole = np.round(folded / steps[:, None, None, None])
    heard = np.pad(np.round(sound[0] / (2 / 255)), ((0, 0), (1, 1), (1, 1)))
    scale, zero = 17 / 255, 135
    for c, i, j in np.ndindex(3, 4, 5):
        total = (heard[:, i : i + 3, j : j + 3] * whole[c]).sum() * steps[c] * 2 / 255 + shift[c]
        y = (np.clip(np.round(total / scale) + zero, 0, 255) - zero) * scale
        wanted = np.clip((y + heard[c, i + 1, j + 1] * 2 / 255), 0, 10)
        # A sum in the middle of two whole numbers may be rounded to either.
        assert found[0, c, i, j] == pytest.approx(wanted, abs=1.01 * (10 / 255 + scale) / 2 + 1e-5)


def test_int8_graph_of_a_dual_encoder(tmp_path: Path) -> None:
    folder = tmp_path / "link"
    untrained_link().save(folder)
    write_graphs(folder, ranges=ranges_of(folder, sounds()))
    runtime = RuntimeCaptioner.load(folder, threads=1)
    effects = []
    for kind in ("fp32", "int8"):
        with runtime.precision(kind):
            effects.append(runtime.bridge_effect(noise(1.5)).embeddings[0])
    assert 1e-6 < 1 - effects[0] @ effects[1] < 0.02


def test_int8_is_computed_inside_its_context_alone(made: Path) -> None:
    runtime = RuntimeCaptioner.load(made, threads=1)
    sound = [noise(1.0)]
    before = runtime.audio_tokens(sound)[0][0]
    with runtime.precision("int8"):
        inside = runtime.audio_tokens(sound)[0][0]
        with runtime.precision("fp32"):
            assert np.array_equal(runtime.audio_tokens(sound)[0][0], before)
        assert np.array_equal(runtime.audio_tokens(sound)[0][0], inside)
    assert np.array_equal(runtime.audio_tokens(sound)[0][0], before)
    assert not np.array_equal(inside, before)


def test_int8_command_uses_the_int8_graph(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "tiny"))
    soundfile.write(tmp_path / "noise.wav", noise(1.0), 16000)
    asked = ["caption", str(tmp_path / "noise.wav"), "--model", str(folder), "-q"]
    assert CliRunner().invoke(app, [*asked, "--precision", "int8"]).exit_code == 0
    (folder / NAME).unlink()
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert CliRunner().invoke(app, [*asked, "--precision", "int8"]).exit_code == 1


def test_int8_is_refused_where_there_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    first = tiny_captioner()
    first.save(folder)
    write_graphs(folder)
    with (
        pytest.raises(ConfigError, match="tiny has no int8 graph; expected fp32"),
        RuntimeCaptioner.load(folder).precision("int8"),
    ):
        pass
    with pytest.raises(ConfigError, match="precision int8: only models"), first.precision("int8"):
        pass


def test_damaged_int8_graph_is_refused(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "tiny"))
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-9])
    runtime = RuntimeCaptioner.load(folder)
    with runtime.precision("int8"):
        with pytest.raises(CheckpointError, match="encoder_int8.onnx: damaged"):
            runtime.caption((noise(1.0), 16000))
        (folder / NAME).unlink()
        with pytest.raises(CheckpointError, match="encoder_int8.onnx: cannot be read"):
            runtime.caption((noise(1.0), 16000))


def test_export_measures_the_ranges_of_int8_on_sounds(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    with_blocks().save(folder)
    (tmp_path / "sounds").mkdir()
    for number, sound in enumerate(sounds(15)):
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", sound, 16000)
    asked = ["export", str(folder), str(tmp_path / "out"), "--int8", str(tmp_path / "sounds")]
    refused = CliRunner().invoke(app, asked)
    assert "expected at least 16 sounds to calibrate int8 on, got 15" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    soundfile.write(tmp_path / "sounds" / "15.wav", sounds(16)[15], 16000)
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "of 20 captions match the model's in int8" in done.output
    assert (tmp_path / "out" / NAME).is_file()
    write_graphs(tmp_path / "out")
    assert not (tmp_path / "out" / NAME).exists()
    assert RuntimeCaptioner.load(tmp_path / "out").caption((noise(1.0), 16000)).text
