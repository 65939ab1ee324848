"""Puts the benchmarks' numbers into README.md: the tables between the marks.

    python docs/readme.py

The files in docs/figures are written by the benchmarks themselves, with `--json`:

    python benchmarks/dev.py --sets both --json docs/figures/dev.json pocket-lamb+events ...
    python benchmarks/ears.py --sounds FOLDER --json docs/figures/ears.json pocket-lamb+events ...
    python benchmarks/caption_speed.py --threads 1 --json docs/figures/caption_speed.json
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
ROWS = {
    "pocket-lamb+events": "pocket-lamb (the default)",
    "pocket-link+events": "pocket-link, zero-shot",
}
COLUMNS = {"cider_d": "CIDEr-D", "meteor": "METEOR", "sbert_sim": "SBERT similarity"}


def figures(name: str) -> dict[str, Any]:
    """What a benchmark wrote."""
    return json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))


def quality() -> str:
    """A row per model: scores on recordings, and the share of single sounds identified."""
    dev, ears = figures("dev"), figures("ears")
    heads = [*COLUMNS.values(), "single sounds identified"]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, label in ROWS.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*dev["models"][name][key]) for key in COLUMNS]
        share = [100 * x for x in ears["right"][name]]
        cells.append("{:.1f} % [{:.1f}, {:.1f}]".format(*share))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    weights = ", ".join(f"{name} {version}" for name, version in dev["weights"].items())
    said = (
        f"{dev['recordings']} recordings with human captions, {ears['sounds']} single sounds of "
        f"{ears['kinds']} kinds; bootstrap 95 % intervals; weights {weights}."
    )
    return "\n".join([*lines, "", said])


def speed() -> str:
    """What a caption takes."""
    found = figures("caption_speed")
    each = min(found["cpu_seconds_per_clip"].values())
    rows = [
        (
            "one sound, from program start to caption",
            f"{found['cold_cpu_seconds']:.1f} s, {found['cold_peak_mib']:.0f} MiB",
        ),
        ("each additional 10 s clip, including reading it", f"{1000 * each:.0f} ms"),
        ("relative to real time, on one core", f"{10 / each:.0f} times faster"),
    ]
    lines = [f"| {found['model']}, on one CPU core | |", "|---|---|"]
    return "\n".join(lines + [f"| {what} | {took} |" for what, took in rows])


TABLES = {"quality": quality, "speed": speed}


def filled(text: str) -> str:
    """The README with the table of each pair of marks as the figures have it."""
    mark = r"(<!-- (\w+) -->\n).*?(\n<!-- /\2 -->)"
    return re.sub(mark, lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", text, flags=re.S)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
