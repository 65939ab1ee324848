"""Puts the scores of the benchmarks on the cards of the pocket models.

    python benchmarks/card_scores.py

The scores are those in docs/figures, which dev.py and ears.py write with `--json`. The default is
what is scored: captions chosen by the class head.
"""

import json
from pathlib import Path

import earwitness
from earwitness.models.card import CardFacts, Evaluation, Interval, write_card
from earwitness.models.json_files import read_json, read_settings, write_json

PACKAGE = Path(earwitness.__file__).parent / "models"
FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"

NOTE = """One to five captions each, never trained on. Settings of the search and of the choice by
the class head were chosen on these recordings, so the scores are optimistic. 95 % intervals by
bootstrap over recordings; one training seed. Of {sounds} single sounds of {kinds} kinds that no
model was trained on, {right:.0%} are named correctly. `python benchmarks/dev.py {name}+events`."""

SUMMARY = "{system}, {size}, CIDEr-D {cider:.2f} on {recordings} real recordings"


def main() -> None:
    dev, ears = (json.loads((FIGURES / f"{name}.json").read_text()) for name in ("dev", "ears"))
    for name in ("pocket-lamb", "pocket-link"):
        folder = PACKAGE / name
        settings = read_json(folder / "earwitness.json")
        card = read_settings(CardFacts, settings["card"], folder / "earwitness.json", builds=False)
        scores = dev["models"][f"{name}+events"]
        metrics = {
            key: Interval(value=value, low=low, high=high)
            for key, (value, low, high) in scores.items()
        }
        note = NOTE.format(
            name=name,
            sounds=ears["sounds"],
            kinds=ears["kinds"],
            right=ears["right"][f"{name}+events"][0],
        )
        system, size, *_ = card.summary.split(", ")
        card = card.model_copy(
            update={
                "metrics": metrics,
                "evaluation": Evaluation(
                    dataset="AudioCaps and Clotho",
                    split="development",
                    clips=dev["recordings"],
                    note=note,
                ),
                "summary": SUMMARY.format(
                    system=system,
                    size=size,
                    cider=metrics["cider_d"].value,
                    recordings=dev["recordings"],
                ),
            }
        )
        settings["card"] = card.model_dump(mode="json", exclude_defaults=True)
        write_json(folder / "earwitness.json", settings)
        write_json(folder / "metrics.json", settings["card"]["metrics"])
        write_card(folder)


if __name__ == "__main__":
    main()
