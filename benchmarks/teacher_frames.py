"""What the encoder costs: captions where its frames are corrected by the teacher's embedding.

    python benchmarks/teacher_frames.py pocket-lamb --data ../shared/data

The student's frames h predict YAMNet's embedding y as P h. On the development recordings y is
computed too, and h moves by the least that explains it: h + S P' (P S P' + c R)^-1 (y - P h), S the
covariance of frames and R that of what P leaves, both of training recordings (the update of a
Kalman filter with c = 0.3). The captioner stays as it is, so the difference is that of the frames.
R2 is the share of y that P h explains.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from dev_tables import SBERT
from jaxtyping import Float

from earwitness import audio, evaluate
from earwitness.encoders.base import Frames
from earwitness.system.captioner import TorchCaptioner
from earwitness_lab.pocket.development import SETS, read_development
from earwitness_lab.pocket.real_sound import real_sounds
from earwitness_lab.pocket.teacher import Yamnet

RATE, SECONDS, BATCH = 16000, 10.0, 23
HOP, SPAN = 3, 6
"""frames between the teacher's patches, and in one"""
NOISE, RIDGE = 0.3, 10.0
METRICS = ["cider_d", "meteor", "rouge_l", "sbert_sim"]


class Heard(NamedTuple):
    """A clip's frames "N D" and the teacher's embeddings "K 1024"."""

    h: np.ndarray
    y: np.ndarray


class Map(NamedTuple):
    """P with its means, and the gain that turns what it leaves into a change of frames."""

    mean_h: np.ndarray
    mean_y: np.ndarray
    weight: Float[np.ndarray, "D E"]
    gain: Float[np.ndarray, "E D"]


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="a model with a frame encoder")
    default = os.environ.get("EARWITNESS_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--recordings", type=int, default=1500, help="to fit P on")
    args = parser.parse_args()
    captioner, teacher = TorchCaptioner.load(args.model), Yamnet(args.data / "yamnet")
    known = [s for s in real_sounds(args.data) if s.label]
    order = np.random.default_rng(0).permutation(len(known))
    training = [known[n] for n in order if not known[n].heldout][: args.recordings]
    heldout = [known[n] for n in order if known[n].heldout][:300]
    fit = fitted([hear(captioner, teacher, s.path) for s in training])
    files, references = read_development(args.data)
    clips = [hear(captioner, teacher, file) for file in files]
    unseen = [hear(captioner, teacher, s.path) for s in heldout]
    print(f"R2: held-out recordings {explained(fit, unseen):.2f}, ", end="")
    print(f"development recordings {explained(fit, clips):.2f}\n")
    print("| frames | set | " + " | ".join(METRICS) + " |\n|---|---" + "|---" * len(METRICS) + "|")
    rows = {"as they are": [c.h for c in clips], "corrected": [moved(fit, c) for c in clips]}
    for name, frames in rows.items():
        texts = captions(captioner, frames)
        for part in SETS:
            first = 0 if part != "dev2" else len(read_development(args.data, "dev").files)
            count = len(read_development(args.data, part).files)
            place = slice(first, first + count)
            found = evaluate(texts[place], references[place], metrics=METRICS, sbert=SBERT)
            values = [f"{found.corpus[m].value:.3f}" for m in METRICS]
            print(f"| {name} | {part} | " + " | ".join(values) + " |")


def hear(captioner: TorchCaptioner, teacher: Yamnet, file: Path) -> Heard:
    """Both networks on the first 10 s of a file."""
    waveform = audio.load(file, RATE)[: round(SECONDS * RATE)]
    with torch.inference_mode():
        h = captioner.encode([waveform]).h[0].float().numpy()
    return Heard(h, teacher(waveform).embedding.astype(np.float32))


def patches(h: np.ndarray, count: int) -> np.ndarray:
    """The mean frame of each of the teacher's patches."""
    starts = [min(HOP * k, len(h) - 1) for k in range(count)]
    return np.stack([h[start : start + SPAN].mean(0) for start in starts])


def fitted(clips: Sequence[Heard]) -> Map:
    """P by ridge regression, and the gain."""
    x = np.concatenate([patches(c.h, len(c.y)) for c in clips])
    y = np.concatenate([c.y for c in clips])
    mean_h, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_h, y - mean_y
    weight = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    spread = x.T @ x / len(x)
    left = np.diag(((y - x @ weight) ** 2).mean(0)) + 1e-3 * np.eye(y.shape[1])
    gain = spread @ weight @ np.linalg.inv(weight.T @ spread @ weight + NOISE * left)
    return Map(mean_h, mean_y, weight, gain.T)


def missing(fit: Map, clip: Heard) -> np.ndarray:
    """What P h does not explain of the teacher's embeddings."""
    return clip.y - fit.mean_y - (patches(clip.h, len(clip.y)) - fit.mean_h) @ fit.weight


def explained(fit: Map, clips: Sequence[Heard]) -> float:
    """R2 over all patches of `clips`."""
    left = sum((missing(fit, clip) ** 2).sum() for clip in clips)
    return float(1 - left / sum(((clip.y - fit.mean_y) ** 2).sum() for clip in clips))


def moved(fit: Map, clip: Heard) -> np.ndarray:
    """The frames of a clip, corrected; between patches the correction is interpolated."""
    change = missing(fit, clip) @ fit.gain
    middle = np.arange(len(change)) * HOP + (SPAN - 1) / 2
    frames = np.arange(len(clip.h))
    columns = [np.interp(frames, middle, column) for column in change.T]
    return (clip.h + np.stack(columns, axis=1)).astype(np.float32)


@torch.inference_mode()
def captions(captioner: TorchCaptioner, frames: Sequence[np.ndarray]) -> list[str]:
    """The best caption of each clip by the model's own search."""
    found: list[str] = []
    for start in range(0, len(frames), BATCH):
        part = [torch.from_numpy(h) for h in frames[start : start + BATCH]]
        counts = torch.tensor([len(h) for h in part])
        padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        mask = torch.arange(padded.shape[1])[None] < counts[:, None]
        tokens = captioner.audio_tokens(Frames(padded, mask))
        found += [row[0].text for row in captioner.generate(tokens, captioner.decoding)]
    return found


if __name__ == "__main__":
    main()
