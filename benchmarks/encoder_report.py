"""How good the pocket encoder is, beside its teacher.

    python benchmarks/encoder_report.py runs/pocket_encoder/best --data ../shared/data

Agreement with YAMNet on the 43 development recordings (top-5 overlap and correlation of clip-level
scores), and a linear probe: ESC-50 classes over the official folds, and separately, clips from
recordings not used in any training; mean and maximum of the frames, logistic regression. The
teacher's embedding goes through the same probe.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from earwitness import audio
from earwitness.encoders import load_frame_encoder
from earwitness.models.weights import load_weights, read_weights
from earwitness_lab.pocket.development import read_recordings
from earwitness_lab.pocket.distill import correlation, top5_overlap
from earwitness_lab.pocket.teacher import N_SCORES, Yamnet
from earwitness_lab.scenes.recordings import heldout_recordings, recording_of
from earwitness_lab.scenes.soundbank import read_manifest


def main() -> None:
    """Prints both reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the `best` folder of a distillation")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    encoder = load_frame_encoder(args.folder / "encoder")
    teacher = Yamnet(args.data / "yamnet")
    agreement(encoder, args.folder, teacher, args.data)
    probe(encoder, teacher, args.data)


@torch.inference_mode()
def frames(encoder: torch.nn.Module, waveform: np.ndarray) -> torch.Tensor:
    """Frames of one clip."""
    clip = torch.from_numpy(waveform)[None]
    return encoder(clip, torch.tensor([clip.shape[1]])).h[0]


@torch.inference_mode()
def agreement(encoder: torch.nn.Module, folder: Path, teacher: Yamnet, data: Path) -> None:
    """Top-5 overlap and correlation of clip-level scores on the development recordings."""
    weights = read_weights(folder / "heads.safetensors")
    head = torch.nn.Linear(encoder.dim, N_SCORES)
    load_weights(head, {k: weights[f"scores.{k}"] for k in ("weight", "bias")}, str(folder))
    ours, theirs = [], []
    for file in read_recordings(data / "dev")[0]:
        waveform = audio.load(file, 16000)
        pooled = torch.nn.functional.avg_pool1d(frames(encoder, waveform).T[None], 6, 3)[0].T
        ours.append(head(pooled).sigmoid().mean(0))
        theirs.append(torch.from_numpy(teacher(waveform).scores.mean(0)))
    a, b = torch.stack(ours), torch.stack(theirs)
    print(
        f"development recordings (n = {len(a)}): top-5 overlap {top5_overlap(a, b):.3f}, ", end=""
    )
    print(f"correlation of clip-level scores {correlation(a, b):.3f}")


def probe(encoder: torch.nn.Module, teacher: Yamnet, data: Path) -> None:
    """Accuracy of a logistic regression over the ESC-50 folds, and on held-out recordings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = read_manifest(data / "train_audio")
    heldout = heldout_recordings(rows, 0.12)
    rows = [row for row in rows if row["source"] == "esc50"]
    sounds = [audio.load(data / "train_audio" / row["path"], 16000) for row in rows]
    by_frame = [frames(encoder, sound).numpy() for sound in sounds]
    student = np.stack([np.concatenate([h.mean(0), h.max(0)]) for h in by_frame])
    embeddings = [teacher(sound).embedding for sound in sounds]
    yamnet = np.stack([np.concatenate([e.mean(0), e.max(0)]) for e in embeddings])
    labels = np.array([row["label"] for row in rows])
    folds = np.array([int(row["fold"]) for row in rows])
    unheard = np.array([recording_of(row) in heldout for row in rows])
    for name, x in (("encoder", student), ("YAMNet", yamnet)):
        guess = np.empty_like(labels)
        for fold in np.unique(folds):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
            guess[folds == fold] = model.fit(x[folds != fold], labels[folds != fold]).predict(
                x[folds == fold]
            )
        right = guess == labels
        print(
            f"linear probe, ESC-50 part ({len(set(labels))} classes), {name}: "
            f"{right.mean():.3f} (n = {len(right)}); on recordings not used in any training: "
            f"{right[unheard].mean():.3f} (n = {unheard.sum()})"
        )


if __name__ == "__main__":
    main()
