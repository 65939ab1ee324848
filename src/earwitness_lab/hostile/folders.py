"""Tiny model folders of each kind, and what using one means: the material for tampering."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from earwitness_lab.hostile.campaign import Attempt, Outcome, Section, run
from earwitness_lab.hostile.tampering import PICKLE_RAN, tamper
from earwitness_lab.reproduce.tiny import clap_model, clap_tokenizer

_SENTENCES = [
    "a dog barks and a man speaks",
    "a man speaks while birds chirp in the background",
    "rain falls and thunder roars",
    "a car passes by followed by a siren",
]


_CNN: dict[str, Any] = {
    **{"stem": 4, "channels": (8, 8, 16), "blocks": (0, 0, 0)},
    **{"dim": 24, "dilations": (1,)},
}


class Kind(NamedTuple):
    """How a folder is made, and how it is loaded and used; both end in an answer of numbers."""

    make: Callable[[Path], None]
    use: Callable[[Path], Any]


def section(place: Path, numbers: range, seed: int) -> Section:
    """The row `tampered folders` of the robustness benchmark."""
    good = {name: place / "good" / name for name in KINDS}
    for name, folder in good.items():
        KINDS[name].make(folder)
        KINDS[name].use(folder)
    return run("tampered folders", _attempts(good, place / "tampered", numbers, seed))


def answered(kind: str, folder: Path) -> Outcome:
    """ "captioned" if the folder gives an answer, "lost" if that holds NaN.

    Raises RuntimeError if a pickle was run, whatever else happened.
    """
    try:
        numbers = np.asarray(KINDS[kind].use(folder), dtype=float)
    finally:
        if PICKLE_RAN.exists():
            PICKLE_RAN.unlink()
            raise RuntimeError("a pickle was run")
    return "captioned" if bool(np.isfinite(numbers).all()) else "lost"


def _attempts(good: dict[str, Path], place: Path, numbers: range, seed: int) -> Iterator[Attempt]:
    names = list(good)
    for number in numbers:
        kind = names[number % len(names)]
        folder = place / "model"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good[kind], folder)
        what = tamper(folder, random.Random(seed * 1_000_003 + number))
        yield Attempt(f"{kind} {number}: {what}", lambda k=kind, f=folder: answered(k, f))


def noise(seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    """White noise at -20 dB, float32."""
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)


def language_model(config: Any = None) -> Any:
    """A two-layer Llama of width 32 behind a byte-level tokenizer, untrained."""
    import torch

    from earwitness.models.llama import LlamaSize
    from earwitness.system.decoder import Decoder, DecoderConfig
    from earwitness.training.language_model import build, train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(_SENTENCES * 20, 400)
    size = LlamaSize(hidden=32, layers=2, heads=2, feed_forward=64)
    return Decoder(build(size, tokenizer), tokenizer, config or DecoderConfig(tune="full"))


def _lamb(folder: Path, *, sharded: bool = False, exported: bool = False) -> None:
    import torch

    from earwitness.caption import Decoding
    from earwitness.encoders.ced import CED, CEDConfig
    from earwitness.encoders.cnn import CNN, CNNConfig
    from earwitness.lamb.two_stream import TwoStreamConfig
    from earwitness.system.captioner import CaptionerConfig, TorchCaptioner
    from earwitness.system.decoder import DecoderConfig

    torch.manual_seed(0)
    size = CEDConfig(embed_dim=24, depth=2, num_heads=4, target_length=112, outputdim=0)
    encoder = CNN(CNNConfig(**_CNN)) if exported else CED(size)
    config = CaptionerConfig(
        prefix=TwoStreamConfig(n_semantic=2, n_temporal=2, n_global=4, heads=2, dropout=0.0),
        decoder=DecoderConfig(tune="full"),
        decoding=Decoding(max_new_tokens=4, beam_size=2),
    )
    made = TorchCaptioner(encoder.eval(), language_model(), config, "tiny")
    made.save(folder)
    if sharded:
        (folder / "decoder/model.safetensors").unlink()
        made.decoder.model.save_pretrained(folder / "decoder", max_shard_size="20KB")
    if exported:
        from earwitness.export.folder import write_graphs

        write_graphs(folder)


def _link(folder: Path) -> None:
    import torch

    from earwitness.caption import Decoding
    from earwitness.encoders import EmbeddingFrames
    from earwitness.encoders.cnn import CNN, CNNConfig
    from earwitness.encoders.dual import DualConfig, DualEncoder, TextTowerConfig
    from earwitness.link.prefix import LinkPrefixConfig
    from earwitness.system.captioner import CaptionerConfig, TorchCaptioner
    from earwitness.system.decoder import DecoderConfig

    torch.manual_seed(0)
    decoder = language_model()
    frames = CNN(CNNConfig(**_CNN))
    text = TextTowerConfig(
        vocabulary=len(decoder.tokenizer), hidden=16, layers=1, heads=2, feed_forward=32
    )
    dual = DualEncoder(frames.eval(), decoder.tokenizer, DualConfig(dim=16, hidden=32, text=text))
    config = CaptionerConfig(
        prefix=LinkPrefixConfig(hidden=32),
        decoder=DecoderConfig(tune="full"),
        guide=None,
        aligner=None,
        decoding=Decoding(max_new_tokens=4, beam_size=2),
    )
    TorchCaptioner(EmbeddingFrames(dual.eval()), decoder, config, "tiny").save(folder)


def _caption(folder: Path) -> list[float]:
    from earwitness.system.captioner import TorchCaptioner

    return _scores(TorchCaptioner.load(folder))


def _caption_without_torch(folder: Path) -> list[float]:
    from earwitness.runtime import RuntimeCaptioner

    return _scores(RuntimeCaptioner.load(folder, threads=1))


def _scores(captioner: Any) -> list[float]:
    captions = captioner.caption_waveforms([noise(rate=captioner.sample_rate)])[0]
    return [caption.score for caption in captions]


def _clap(folder: Path) -> None:
    from transformers import ClapFeatureExtractor

    clap_model(12).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    clap_tokenizer(_SENTENCES * 20).save_pretrained(folder)


def _embed(folder: Path) -> Any:
    from earwitness.encoders import load_embedding_encoder

    encoder: Any = load_embedding_encoder(folder)
    audio = encoder.embed_audio([noise(rate=encoder.sample_rate)])
    return [audio.tolist(), encoder.embed_text(["a dog barks"]).tolist()]


def _bert(folder: Path, classes: int) -> None:
    import json

    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        BertTokenizerFast,  # type: ignore[attr-defined]
    )

    words = sorted({word for sentence in _SENTENCES for word in sentence.split()})
    folder.mkdir(parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]))
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(special) + len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=classes or 2,  # type: ignore[call-arg]
    )
    torch.manual_seed(0)
    made = BertForSequenceClassification(config) if classes else BertModel(config)
    made.save_pretrained(folder)
    if not classes:
        modules = [{"idx": 0, "type": "sentence_transformers.models.Transformer"}]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
        (folder / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))


def _similarity(folder: Path) -> Any:
    from earwitness.evaluation.semantic import load_sbert, sbert_similarity

    model = load_sbert(str(folder), "cpu")
    return sbert_similarity(model, _SENTENCES[:1], [_SENTENCES[1:2]])


def _fluency(folder: Path) -> Any:
    from earwitness.evaluation.semantic import error_probability, load_fluency

    return error_probability(load_fluency(str(folder), "cpu"), _SENTENCES[:1])


KINDS: dict[str, Kind] = {
    "lamb": Kind(_lamb, _caption),
    "link": Kind(_link, _caption),
    "sharded": Kind(partial(_lamb, sharded=True), _caption),
    "runtime": Kind(partial(_lamb, exported=True), _caption_without_torch),
    "clap": Kind(_clap, _embed),
    "sentence encoder": Kind(partial(_bert, classes=0), _similarity),
    "fluency detector": Kind(partial(_bert, classes=6), _fluency),
}
"""the kinds of folders that are loaded"""
