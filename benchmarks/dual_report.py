"""Retrieval and modality gap of an embedding encoder on held-out scenes and the dev recordings.

python benchmarks/dual_report.py --data ../shared/data --encoder runs/pocket_clap/best/encoder
"""

import argparse
from pathlib import Path

import torch

from earwitness.encoders import load_embedding_encoder
from earwitness.gap import measure
from earwitness.training.embeddings import Pairs, embed_clips, open_embeddings
from earwitness.training.stages import read_recipe
from earwitness_lab.pocket.development import read_recordings

ROWS = (
    *(f"{way}_r{k}" for way in ("audio_to_text", "text_to_audio") for k in (1, 5, 10)),
    "paired_cosine",
    "unpaired_cosine",
    "centroid_distance",
    "rmg",
    "separability",
    "gram_correlation",
)


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", type=Path, default=Path("runs/pocket_clap/best/encoder"))
    parser.add_argument("--recipe", type=Path, default=Path("recipes/pocket_bridge.toml"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", action="append", default=[], help="change to the recipe")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changes = [f"data={args.data}", f"encoder={args.encoder}", *args.set]
    recipe = read_recipe(args.recipe, changes)
    heldout = open_embeddings(recipe.source, args.encoder, args.runs)
    dev = embed_clips(load_embedding_encoder(args.encoder), *read_recordings(args.data / "dev"))
    sets = {"validation scenes": heldout.validation, "test scenes": heldout.test, "dev": dev}
    titles = [f"{name} ({len(pairs.audio)} / {len(pairs.text)})" for name, pairs in sets.items()]
    print("| quantity | " + " | ".join(titles) + " |\n|---|" + "---|" * len(sets))
    reports = [gap(pairs) for pairs in sets.values()]
    for name in ROWS:
        print(f"| {name} | " + " | ".join(report[name] for report in reports) + " |")


def gap(pairs: Pairs) -> dict[str, str]:
    """Every quantity with its interval, as text."""
    report = measure(pairs.audio, pairs.text, owner=pairs.owner, bootstrap=200)
    return {row.name: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in report.rows}


if __name__ == "__main__":
    main()
