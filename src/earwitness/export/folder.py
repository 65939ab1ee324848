"""The ONNX graphs of a model folder, and `runtime.json`, which says how they go together."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from earwitness.encoders.cnn import CNNConfig
from earwitness.encoders.dual import DualConfig
from earwitness.errors import ConfigError
from earwitness.export import decoder, encoder, prefix
from earwitness.export.graph import Graph
from earwitness.models.names import part_folder
from earwitness.models.weights import read_json, read_settings, write_json
from earwitness.runtime.settings import GRAPHS, RuntimeSettings, Windows
from earwitness.runtime.weights import WeightFile
from earwitness.system.captioner import CaptionerConfig
from earwitness.system.decoder import Decoder
from earwitness.system.folder import open_decoder


def write_graphs(folder: Path) -> RuntimeSettings:
    """Writes `encoder.onnx`, `prefix.onnx`, `decoder.onnx` and `runtime.json` into the model folder
    `folder`; the weights stay where they are.

    Raises:
        ConfigError: a part of the model has no ONNX form. CheckpointError: the folder is damaged.
    """
    settings = read_json(folder / "earwitness.json")
    config = read_settings(CaptionerConfig, settings.get("config"), folder / "earwitness.json")
    if settings.get("lora") is not None:
        raise ConfigError(
            f"{folder}: its LoRA weights lie beside the language model; merge them first "
            "(save with merge=True)"
        )
    if settings.get("parts"):
        raise ConfigError(f"{folder}: takes a part from the hub; save it with refer=False first")
    files = _weight_files(folder, settings)
    llm_folder = part_folder(folder, "decoder", settings)
    sizes = decoder.LlamaSizes.of(read_json(llm_folder / "config.json"))
    llm = open_decoder(folder, config.decoder)
    encoder_graph, facts = _encoder(folder, settings, files)
    graphs = (encoder_graph, _prefix(config, files, facts["dim"], llm), Graph("decoder", files))
    decoder.llama_graph(graphs[2], sizes)
    digests = {g.name: hashlib.sha256(g.write(folder).read_bytes()).hexdigest() for g in graphs}
    before, after = llm.prompt_ids()
    runtime = RuntimeSettings(
        graphs=digests,
        tokenizer=hashlib.sha256((llm_folder / "tokenizer.json").read_bytes()).hexdigest(),
        sample_rate=facts["sample_rate"],
        shortest=facts["shortest"],
        windows=facts["windows"],
        vocabulary=sizes.vocabulary,
        layers=sizes.layers,
        key_heads=sizes.key_heads,
        head_dim=sizes.head_dim,
        end=int(llm.tokenizer.eos_token_id),
        before=tuple(before),
        after=tuple(after),
        special=_places(llm.special.numpy()),
        content=_places(llm.content_ids().numpy()),
        guide=config.guide is not None,
    )
    write_json(folder / "runtime.json", runtime.model_dump(mode="json"))
    return runtime


def _weight_files(folder: Path, settings: dict[str, Any]) -> dict[str, WeightFile]:
    """The weight files by the place that graphs give them, wherever shared parts really lie."""
    found = {"prefix.safetensors": WeightFile(folder / "prefix.safetensors")}
    for part in ("encoder", "encoder/audio", "decoder"):
        path = part_folder(folder, part, settings) / "model.safetensors"
        if path.is_file():
            found[f"{part}/model.safetensors"] = WeightFile(path)
    return found


def _encoder(
    folder: Path, settings: dict[str, Any], files: dict[str, WeightFile]
) -> tuple[Graph, dict[str, Any]]:
    """`encoder.onnx`, and what the runtime must know of it."""
    graph, own = Graph("encoder", files), part_folder(folder, "encoder", settings)
    config = read_json(own / "config.json")
    kind = config.pop("kind", config.get("model_type"))
    if kind == "cnn":
        frames = read_settings(CNNConfig, config, own / "config.json")
        encoder.cnn_graph(graph, frames, "encoder/model.safetensors")
        return graph, _facts(frames, frames.dim, None)
    if kind == "dual":
        dual = read_settings(DualConfig, config, own / "config.json")
        audio = part_folder(folder, "encoder/audio", settings)
        inner = read_json(audio / "config.json")
        kind = inner.pop("kind", inner.get("model_type"))
        if kind == "cnn":
            frames = read_settings(CNNConfig, inner, audio / "config.json")
            names = ("encoder/audio/model.safetensors", "encoder/model.safetensors")
            encoder.dual_graph(graph, frames, names[0], dual, names[1])
            return graph, _facts(frames, dual.dim, dual)
    raise ConfigError(
        f"{folder}: an encoder of kind {kind!r} has no ONNX form; expected 'cnn', or 'dual' over it"
    )


def _facts(frames: CNNConfig, dim: int, dual: DualConfig | None) -> dict[str, Any]:
    rate = frames.log_mel.sample_rate
    windows = None
    if dual is not None:
        sizes = (round(s * rate) for s in (dual.window_seconds, dual.stride_seconds))
        windows = Windows(**dict(zip(("size", "stride"), sizes, strict=True)))
    return {
        "sample_rate": rate,
        "dim": dim,
        "shortest": frames.log_mel.n_fft,
        "windows": windows,
    }


def _prefix(
    config: CaptionerConfig, files: dict[str, WeightFile], dim: int, llm: Decoder
) -> Graph:
    graph = Graph("prefix", files)
    h = graph.input("h", "float", ["clips", "frames", dim])
    if config.prefix.kind == "two_stream":
        z = prefix.two_stream_tokens(graph, h, config.prefix.two_stream, dim)
    elif config.prefix.kind == "linear":
        z = prefix.linear_tokens(graph, h, config.prefix.linear, dim)
    elif config.prefix.kind == "link":
        z = prefix.link_tokens(graph, h, config.prefix.link, dim)
    else:
        raise ConfigError(
            f"prefix {config.prefix.kind!r} has no ONNX form; expected 'two_stream', 'linear' or "
            "'link'"
        )
    z = graph.output(z, "z", ["clips", "tokens", llm.dim])
    if config.guide is not None:
        table = graph.weight(decoder.FILE, decoder.TABLE)
        special = llm.special.numpy()
        bias = prefix.guide_bias(graph, z, config.guide, table, special)
        graph.output(bias, "bias", ["clips", len(special)])
    return graph


def _places(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(int(place) for place in np.flatnonzero(flags))


__all__ = ["GRAPHS", "write_graphs"]
