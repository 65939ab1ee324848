"""LAMB's Tables 2 to 4 at pocket size: trains what is missing, scores everything, prints Markdown.

    python benchmarks/ablations.py --data ../shared/data --seeds 3

Each row is a recipe of recipes/ablations over several seeds; frames of the scenes are shared.
Scores on the 43 development recordings (five captions each) and on held-out scenes (one caption
each): pooled over seeds, with bootstrap 95 % intervals over recordings and seeds; p: against the
full system, over recordings and seeds together, corrected by Holm for all rows of the table. The
loss is that of the human captions in nats per token, minus that of the full system, with the 95 %
interval over recordings and seeds; below zero is better. The gap is that of held-out scenes at the
best validation.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from dev import caption_all, caption_losses

from earwitness import Captioner, evaluate
from earwitness.encoders.base import Frames
from earwitness.evaluation import compare, pool
from earwitness.statistics import holm
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.stages import read_recipe
from earwitness_lab.pocket.development import read_recordings
from earwitness_lab.pocket.guide_effect import difference

RUNS = Path("runs")
ROWS = (
    ("full", "pocket_lamb.toml"),
    ("audio withheld", "ablations/blind.toml"),
    ("Table 2: linear prefix", "ablations/linear.toml"),
    ("Table 2: Q-Former", "ablations/q_former.toml"),
    ("Table 3: guide with squared L2", "ablations/guide_l2.toml"),
    ("Table 3: guide with L1", "ablations/guide_l1.toml"),
    ("Table 3: guide with cosine", "ablations/guide_cosine.toml"),
    ("Table 4: no Token Guide", "ablations/no_guide.toml"),
    ("Table 4: no aligner", "ablations/no_aligner.toml"),
    ("Table 4: no CS divergence", "ablations/no_cs.toml"),
    ("LoRA on a frozen LM", "ablations/lora.toml"),
    ("guide: maximum over tokens", "ablations/guide_max.toml"),
    ("sigma = 1", "ablations/sigma_1.toml"),
    ("aligner: losses times 0.3", "ablations/light_aligner.toml"),
    ("no label smoothing", "ablations/no_smoothing.toml"),
    ("half the learning rate", "ablations/slow.toml"),
)


def main() -> None:
    """Trains, captions and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", help="recipes by stem; all unless named")
    parser.add_argument("--set", action="append", default=[], help="recipe key=value for all rows")
    args = parser.parse_args()
    rows = [row for row in ROWS if not args.rows or Path(row[1]).stem in args.rows]
    full: dict[str, list] = {}
    base: list[np.ndarray] = []
    found: list[tuple[list[str], float]] = []
    for name, recipe in rows:
        folders = [train(recipe, seed, args) for seed in range(args.seeds)]
        for where in ("dev", "scenes"):
            runs = [scores(folder, where, Path(args.data)) for folder in folders]
            first = where not in full
            full.setdefault(where, runs)
            loss = ""
            if where == "dev":
                losses = [dev_losses(folder, Path(args.data)) for folder in folders]
                base = base or losses
                loss = change(losses, base)
            p = math.nan if first else compare(runs, full[where])["cider_d"].p
            found.append((cells(name, where, runs, loss, folders), p))
            print(f"{name}, {where}: done", file=sys.stderr, flush=True)
    print("| row | set | CIDEr-D | METEOR | ROUGE-L | loss | gap L2 | gap cosine | p (Holm) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (row, _), p in zip(found, holm([p for _, p in found]), strict=True):
        print(f"| {' | '.join(row)} | {'' if math.isnan(p) else f'{p:.3f}'} |")


def train(recipe: str, seed: int, args: argparse.Namespace) -> Path:
    """The run folder of a row and seed, trained unless it is there."""
    folder = RUNS / f"ablation-{Path(recipe).stem}-{seed}"
    if not (folder / "done").exists():
        command = [sys.executable, "-m", "earwitness", "train", f"recipes/{recipe}"]
        command += ["--run", str(folder), "--data", args.data, "--set", f"fit.seed={seed}"]
        for change in args.set:
            command += ["--set", change]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "done").touch()
    return folder


def scores(folder: Path, where: str, data: Path) -> object:
    """The evaluation of a run on the development recordings or the held-out scenes."""
    kept = folder / f"captions-{where}.json"
    if not kept.exists():
        captions, references = on_dev(folder, data) if where == "dev" else on_scenes(folder)
        kept.write_text(json.dumps([captions, references]))
    captions, references = json.loads(kept.read_text())
    return evaluate(captions, references)


def dev_losses(folder: Path, data: Path) -> np.ndarray:
    """The loss of each recording's human captions."""
    kept = folder / "losses-dev.npy"
    if not kept.exists():
        np.save(
            kept,
            caption_losses(TorchCaptioner.load(folder / "best"), *read_recordings(data / "dev")),
        )
    return np.load(kept)


def change(losses: list[np.ndarray], base: list[np.ndarray]) -> str:
    """The mean of the full system, or the mean difference from it with its interval."""
    if losses is base:
        return f"{np.mean(losses):.3f}"
    runs = [{"row": mine, "full": full} for mine, full in zip(losses, base, strict=True)]
    found = difference(runs, "row", "full")
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def on_dev(folder: Path, data: Path) -> tuple[list[str], list[list[str]]]:
    """Captions and references of the development recordings."""
    files, references = read_recordings(data / "dev")
    return caption_all(str(folder / "best"), files)[0], references


@torch.inference_mode()
def on_scenes(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Captions and references of the held-out scenes, from their cached frames."""
    captioner = Captioner.load(folder / "best")
    encoder = read_recipe(Path("recipes/pocket_lamb.toml")).encoder
    code = hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest()[:12]
    pool_folder = next((RUNS / "pool").glob(f"frames-heldout-*-{code}"))
    frames = np.load(pool_folder / "frames.npy", mmap_mode="r")
    texts = np.load(pool_folder / "text.npy")
    captions: list[str] = []
    for start in range(0, len(frames), 20):
        h = torch.from_numpy(np.array(frames[start : start + 20], np.float32))
        if "blind" in folder.name:
            h = torch.zeros_like(h)
        mask = torch.ones(h.shape[:2], dtype=torch.bool)
        found = captioner.generate(
            captioner.audio_tokens(Frames(h, mask)), captioner.config.decoding
        )
        captions += [row[0].text for row in found]
    return captions, [[text.decode()] for text in texts.tolist()]


def cells(name: str, where: str, runs: list, loss: str, folders: list[Path]) -> list[str]:
    """One row of the table without its p."""
    pooled = pool(runs)
    gaps = np.mean([last_gap(folder) for folder in folders], axis=0)
    scored = [cell(pooled[metric]) for metric in ("cider_d", "meteor", "rouge_l")]
    return [name, where, *scored, loss, *(f"{gap:.2f}" for gap in gaps)]


def cell(score: object) -> str:
    """Value and interval."""
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"  # type: ignore[attr-defined]


def last_gap(folder: Path) -> tuple[float, float]:
    """Distance and cosine between mean audio and mean caption tokens, at the best validation."""
    rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "validation/decode" in row]
    best = min(rows, key=lambda row: row["validation/decode"])
    return best["validation/gap_l2"], best["validation/gap_cosine"]


if __name__ == "__main__":
    main()
