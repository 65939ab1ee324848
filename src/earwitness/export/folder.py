"""The ONNX graphs of a model folder, and `runtime.json`, which says how they fit together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness.encoders import load_encoder
from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.cnn import CNN
from earwitness.encoders.dual import DualEncoder, EmbeddingFrames
from earwitness.errors import ConfigError
from earwitness.export import decoder, encoder, prefix
from earwitness.export.arithmetic import Int8, Range
from earwitness.export.graph import Graph
from earwitness.export.ranges import measured_ranges
from earwitness.io.digests import sha256_of
from earwitness.lamb.baselines import LinearPrefix
from earwitness.lamb.two_stream import TwoStreamAdapter
from earwitness.link import LinkPrefix
from earwitness.models.json_files import read_json, write_json
from earwitness.models.names import part_folder
from earwitness.runtime.settings import GRAPHS, INT8, RuntimeSettings, Windows
from earwitness.runtime.weights import WeightFile
from earwitness.system.captioner import TorchCaptioner

_PARTS = ("encoder", "encoder/audio", "decoder")
_FRAMES = ("encoder/model.safetensors", "encoder/audio/model.safetensors")
"""the frame encoder's weights: alone, and inside a dual encoder"""


def write_graphs(
    folder: Path, out: Path | None = None, ranges: Sequence[tuple[float, float]] = ()
) -> RuntimeSettings:
    """Writes `encoder.onnx`, `prefix.onnx`, `decoder.onnx` and `runtime.json` for the model in
    `folder` into that folder, or into `out`; the weights stay where they are. With `ranges` from
    `ranges_of`, also writes `encoder_int8.onnx`; otherwise removes it.

    Raises:
        ConfigError: a part of the model cannot be exported. CheckpointError: the folder is damaged.
    """
    settings = read_json(folder / "earwitness.json")
    if settings.get("lora") is not None or settings.get("parts"):
        raise ConfigError(
            f"{folder}: refers to parts elsewhere, or has LoRA weights of its own; expected a "
            "model that was saved with refer=False and merge=True"
        )
    captioner = TorchCaptioner.load(folder)
    places = {part: part_folder(folder, part, settings) for part in _PARTS}
    files = _weight_files(folder, places)
    graphs = [Graph(name, files) for name in GRAPHS]
    llm = captioner.decoder
    sizes = decoder.LlamaSizes.of(llm.model.config.to_dict())
    heard, windows = _encoder(graphs[0], captioner.encoder)
    ((out or folder) / f"{INT8}.onnx").unlink(missing_ok=True)
    if ranges:
        graphs.append(Graph(INT8, files))
        file = _FRAMES[windows is not None]
        _encoder(graphs[-1], captioner.encoder, lambda: Int8(graphs[-1], file, ranges))
    _prefix(graphs[1], captioner)
    decoder.llama_graph(graphs[2], sizes)
    before, after = llm.prompt_ids()
    end = llm.tokenizer.eos_token_id
    assert isinstance(end, int)
    runtime = RuntimeSettings(
        graphs={graph.name: sha256_of(graph.write(out or folder)) for graph in graphs},
        tokenizer=sha256_of(places["decoder"] / "tokenizer.json"),
        sample_rate=captioner.sample_rate,
        shortest=heard.config.log_mel.n_fft,
        windows=windows,
        vocabulary=sizes.vocabulary,
        layers=sizes.layers,
        key_heads=sizes.key_heads,
        head_dim=sizes.head_dim,
        end=end,
        before=tuple(before),
        after=tuple(after),
        special=_places(llm.special.numpy()),
        content=_places(llm.content_ids().numpy()),
        guide=captioner.has_guide,
        bridge=captioner.has_bridge,
        ranges=tuple((low, high) for low, high in ranges),
    )
    write_json((out or folder) / "runtime.json", runtime.model_dump(mode="json"), compact=True)
    return runtime


def ranges_of(folder: Path, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Range]:
    """The ranges of the encoder's activations on `sounds` (mono, at the model's rate), for an int8
    graph.

    Raises:
        ConfigError: the encoder cannot be exported, or there are fewer than 16 sounds.
    """
    settings = read_json(folder / "earwitness.json")
    places = {part: part_folder(folder, part, settings) for part in _PARTS}
    files = _weight_files(folder, places)
    part = load_encoder(places["encoder"], places["encoder/audio"])
    heard, windows = _encoder(Graph("encoder", files), part)
    file = _FRAMES[windows is not None]
    return measured_ranges(heard.config, file, files[file].path, sounds)


def _weight_files(folder: Path, places: dict[str, Path]) -> dict[str, WeightFile]:
    """The weight files by the names that graphs use for them."""
    files = {"prefix.safetensors": WeightFile(folder / "prefix.safetensors")}
    for part, place in places.items():
        if (place / "model.safetensors").is_file():
            files[f"{part}/model.safetensors"] = WeightFile(place / "model.safetensors")
    return files


def _encoder(
    graph: Graph, part: FrameEncoder, body: encoder.Body | None = None
) -> tuple[CNN, Windows | None]:
    """Fills `encoder.onnx`; returns its frame encoder, and the window length if clips are cut."""
    if isinstance(part, CNN):
        encoder.cnn_graph(graph, part.config, _FRAMES[0], body)
        return part, None
    dual = part.encoder if isinstance(part, EmbeddingFrames) else part
    if isinstance(dual, DualEncoder) and isinstance(dual.frames, CNN):
        files = _FRAMES[1], "encoder/model.safetensors"
        encoder.dual_graph(graph, dual.frames.config, files[0], dual.config, files[1], body)
        rate, config = dual.sample_rate, dual.config
        size, stride = round(config.window_seconds * rate), round(config.stride_seconds * rate)
        return dual.frames, Windows(size=size, stride=stride)
    raise ConfigError(
        f"cannot export an encoder of type {type(dual).__name__} to ONNX; expected the CNN, or a "
        "dual encoder with it"
    )


def _prefix(graph: Graph, captioner: TorchCaptioner) -> None:
    part, llm = captioner.prefix, captioner.decoder
    dim = captioner.encoder.dim
    h = graph.input("h", "float", ["clips", "frames", dim])
    if isinstance(part, TwoStreamAdapter):
        z = prefix.two_stream_tokens(graph, h, part.config, dim)
    elif isinstance(part, LinearPrefix):
        z = prefix.linear_tokens(graph, h, part.config, dim)
    elif isinstance(part, LinkPrefix):
        z = prefix.link_tokens(graph, h, part, dim)
    else:
        raise ConfigError(
            f"cannot export a prefix of type {type(part).__name__} to ONNX; expected two_stream, "
            "linear or link"
        )
    z = graph.output(z, "z", ["clips", "tokens", llm.dim])
    if captioner.guide is not None:
        table = graph.weight(decoder.FILE, decoder.TABLE)
        special = llm.special.numpy()
        bias = prefix.guide_bias(graph, z, captioner.guide.config, table, special)
        graph.output(bias, "bias", ["clips", len(special)])


def _places(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(int(place) for place in np.flatnonzero(flags))
