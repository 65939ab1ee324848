"""Which batch fits on which card, from shapes alone: nothing is loaded, no card is needed.

python benchmarks/memory_table.py

Prints Markdown. Times come from counted operations at 40 % of the card's peak (NVIDIA's figures for
dense bf16 with float32 sums: 30 TFLOP/s for 8 GB, an RTX 4060; 165 for 24 GB, an RTX 4090; 312 for
80 GB, an A100): they say what to expect, not what was measured.
"""

import argparse

from earwitness.system.decoder import LoraConfig
from earwitness_lab.reproduce.gpu import A100, REACHED
from earwitness_lab.reproduce.memory import (
    GIB,
    LANGUAGE_MODELS,
    Counted,
    Plan,
    captioning_bytes,
    count,
    language_model,
    largest_batch,
    prefix_count,
    step_flops,
    training_bytes,
)

CARDS = {8: 30e12, 24: 165e12, 80: A100}
"""GB -> peak operations per second"""
WAYS = [
    ("bf16 + LoRA", False, False),
    ("bf16 + LoRA, checkpointing", False, True),
    ("QLoRA (nf4)", True, False),
    ("QLoRA (nf4), checkpointing", True, True),
]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(LANGUAGE_MODELS), metavar="NAME")
    args = parser.parse_args()
    lines = [*_training(args.models), "", *_captioning(args.models)]
    print("\n".join(lines))


def _plan(name: str, quantized: bool, checkpointing: bool) -> tuple[Plan, Counted]:
    settings = LANGUAGE_MODELS[name]
    prefix = prefix_count(768, settings["hidden_size"])
    plan = Plan(settings, quantized, checkpointing, prefix_weights=prefix)
    return plan, count(language_model(settings), LoraConfig())


def _training(names: list[str]) -> list[str]:
    head = "| language model | method | weights | per extra clip | " + " | ".join(
        f"{size} GB: batch, clips/s" for size in CARDS
    )
    lines = [head + " |", "|---|---|---|---|" + "---|" * len(CARDS)]
    for name in names:
        for label, quantized, checkpointing in WAYS:
            plan, counted = _plan(name, quantized, checkpointing)
            one, two = (sum(training_bytes(plan, counted, n).values()) for n in (1, 2))
            cells = [_cell(plan, counted, size) for size in CARDS]
            lines.append(
                f"| {name} | {label} | {(2 * one - two) / GIB:.2f} GiB | "
                f"{(two - one) / 2**20:.0f} MiB | {' | '.join(cells)} |"
            )
    return lines


def _cell(plan: Plan, counted: Counted, size: int) -> str:
    batch = largest_batch(lambda n: training_bytes(plan, counted, n), size * 1e9)
    if not batch:
        return "-"
    seconds = step_flops(plan, counted, batch) / (max(REACHED) * CARDS[size])
    return f"{_batch(batch)}, {batch / seconds:.0f}"


def _captioning(names: list[str]) -> list[str]:
    head = "| language model | weights | per extra clip, beam 4 | " + " | ".join(
        f"{size} GB: beam 4 / greedy" for size in CARDS
    )
    lines = [head + " |", "|---|---|---|" + "---|" * len(CARDS)]
    for name in names:
        for label, quantized in (("bf16", False), ("nf4", True)):
            plan, counted = _plan(name, quantized, False)
            one, two = (sum(captioning_bytes(plan, counted, n).values()) for n in (1, 2))
            cells = []
            for size in CARDS:
                batches = (_most(plan, counted, size, beams) for beams in (4, 1))
                cells.append(" / ".join(_batch(n) if n else "-" for n in batches))
            lines.append(
                f"| {name}, {label} | {(2 * one - two) / GIB:.2f} GiB | "
                f"{(two - one) / 2**20:.0f} MiB | {' | '.join(cells)} |"
            )
    return lines


def _most(plan: Plan, counted: Counted, size: int, beams: int) -> int:
    return largest_batch(lambda n: captioning_bytes(plan, counted, n, beams), size * 1e9)


def _batch(batch: int) -> str:
    return "512+" if batch == 512 else str(batch)


if __name__ == "__main__":
    main()
