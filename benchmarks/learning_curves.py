"""Draws how the pocket models learned, from the logs of their runs, into docs/images.

python benchmarks/learning_curves.py --runs runs
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pocket import LAMB_STAGES

from earwitness.gap.plots import save_figures, training_curve_figure

SMOOTH = 25
"""steps that a point of a loss curve is the mean of"""
ENCODER = [stage for stage in LAMB_STAGES if stage.startswith("pocket_encoder")]
AGREEMENT = {
    "embedding_r2": "teacher's embedding, R2",
    "scores_r": "teacher's scores, r",
    "top5": "teacher's top 5, overlap",
    "class_map": "classes, mAP",
}
TEXT = {"decode": "caption loss", "guide": "guide loss"}
ALIGNER = {"cs_global": "CS, clips", "cs_token": "CS, tokens", "infonce": "InfoNCE"}
RECALL = {"audio_to_text_r10": "audio to text, R@10", "text_to_audio_r10": "text to audio, R@10"}


def main() -> None:
    """Reads the logs and writes one figure (PNG and SVG) for each table of names above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    encoder = log(args.runs / stage for stage in ENCODER)
    lamb = log([args.runs / "pocket_lamb"])
    clap = log([args.runs / "pocket_clap"])
    figures = {
        "curve-encoder": validations(encoder, AGREEMENT, "on held-out scenes"),
        "curve-lamb-text": losses(lamb, TEXT),
        "curve-lamb-aligner": losses(lamb, ALIGNER),
        "curve-clap": validations(clap, RECALL, "on held-out scenes"),
    }
    for path in save_figures(figures, args.out):
        print(path)


def log(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of several runs, one after the other, their steps counted on."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        before = rows[-1]["step"] if rows else 0
        for line in (run / "log.jsonl").read_text().splitlines():
            row = json.loads(line)
            rows.append({**row, "step": row["step"] + before})
    return rows


def validations(rows: list[dict[str, Any]], names: dict[str, str], quantity: str) -> Any:
    """Scores at each validation."""
    found = [row for row in rows if f"validation/{next(iter(names))}" in row]
    curves = {label: [row[f"validation/{name}"] for row in found] for name, label in names.items()}
    return training_curve_figure([row["step"] for row in found], curves, quantity=quantity)


def losses(rows: list[dict[str, Any]], names: dict[str, str]) -> Any:
    """Training losses, each point the mean of `SMOOTH` steps."""
    found = [row for row in rows if next(iter(names)) in row]
    whole = len(found) // SMOOTH * SMOOTH
    steps = [row["step"] for row in found[:whole]][SMOOTH - 1 :: SMOOTH]
    curves = {
        label: np.array([row[name] for row in found[:whole]]).reshape(-1, SMOOTH).mean(1).tolist()
        for name, label in names.items()
    }
    return training_curve_figure(steps, curves, quantity=f"mean of {SMOOTH} steps")


if __name__ == "__main__":
    main()
