"""What fine-tuning the shipped captioner on a few hundred clips of your own brings.

    python benchmarks/finetune_domain.py --data ../shared/data --out runs/finetune

Builds the domain (a home monitor: eight kinds of sounds, sentences in a house style), runs the
commands of docs/finetune.md for each seed, and prints scores before and after: on the test clips,
and on the 43 development recordings for what is forgotten. Test recordings are among those that
no pocket model was trained on; one clip per recording.
"""

import argparse
import csv
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earwitness import audio, evaluate
from earwitness.data.manifest import read_manifest as read_clips
from earwitness_lab.pocket.development import read_recordings
from earwitness_lab.scenes.recordings import heldout_recordings, read_manifest, recording_of

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "finetune_pocket.toml"
RATE, SECONDS, SHORTEST = 16000, 10.0, 0.7
TRAIN_RECORDINGS, CLIPS_A_RECORDING, TEST_RECORDINGS = 25, 2, 12
METRICS = ("cider_d", "rouge_l")

SENTENCES = {
    "baby_crying": (
        "infant in distress in the nursery",
        "the baby is upset and needs attention",
        "nursery check needed because of a crying infant",
    ),
    "dog_barking": (
        "the dog is raising an alarm",
        "dog alert with repeated barking",
        "guard dog barking at something outside",
    ),
    "glass_breaking": (
        "glass breakage detected",
        "possible intrusion with a shattered pane",
        "a pane of glass has been smashed",
    ),
    "door_open_close": (
        "a door has been operated",
        "entry event with door movement in the hallway",
        "door movement detected",
    ),
    "water_faucet": (
        "the tap has been left running",
        "water flow detected at the sink",
        "open tap with water running in the kitchen",
    ),
    "snoring": (
        "resident asleep and snoring",
        "heavy snoring reported from the bedroom",
        "deep sleep with loud snoring",
    ),
    "cat_meowing": (
        "the cat is asking for food",
        "cat alert with repeated meowing",
        "house cat calling for attention",
    ),
    "siren": (
        "emergency siren outside the house",
        "ambulance or police siren approaching",
        "siren alert from the street",
    ),
}
"""house style of the domain: what a clip of each kind of sound is called"""

NAMES = {
    "baby_crying": r"bab(y|ies)|infants?|nursery",
    "dog_barking": r"dogs?|pupp(y|ies)|bark(s|ing)?",
    "glass_breaking": r"glass|panes?|shatter(s|ed|ing)?",
    "door_open_close": r"doors?",
    "water_faucet": r"water|tap|faucet|sink",
    "snoring": r"snor(e|es|ing)|asleep|sleep(s|ing)?",
    "cat_meowing": r"cats?|kittens?|meow(s|ing|ed)?",
    "siren": r"sirens?|ambulance",
}
"""words that name each kind of sound, in the house style or in ordinary English"""


def main() -> None:
    """Reads the command line, builds what is missing, trains, and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of split and training")
    parser.add_argument("--set", action="append", default=[], help="recipe key=value")
    parser.add_argument("--only-build", action="store_true")
    args = parser.parse_args()
    if not (args.out / "test.csv").is_file():
        build_domain(args.data / "train_audio", args.out)
    if args.only_build:
        return
    dev = args.data / "dev" / "clips"
    before = caption(args.out, dev, "pocket-lamb", "before")
    after = []
    for seed in range(args.seeds):
        model = fine_tune(args.out, seed, args.set)
        after.append(caption(args.out, dev, str(model), f"after-{seed}"))
    report(args.out, args.data, {"before": [before], "after": after})
    against = [word for _ in after for word in ("--against", before[0])]
    files = [test for test, _ in after]
    earwitness(
        "evaluate", *files, args.out / "test.csv", "--metrics", "cider_d,rouge_l,meteor", *against
    )


def build_domain(sounds: Path, out: Path, seed: int = 0) -> None:
    """Writes `out`/clips.csv and `out`/test.csv with the clips that they name.

    Test: one clip of each recording that the pocket models' training left out, at most twelve per
    kind. Training: two clips of each of at most twenty-five other recordings per kind.
    """
    rng = np.random.default_rng(seed)
    rows = read_manifest(sounds)
    heldout = heldout_recordings(rows, 0.12)
    groups: dict[tuple[str, bool], dict[str, list[dict[str, str]]]] = {}
    for row in rows:
        name = recording_of(row)
        fits = row["label"] in SENTENCES and row.get("kind") != "NC-ND"
        if fits and float(row["seconds"]) >= SHORTEST:
            key = row["label"], name in heldout
            groups.setdefault(key, defaultdict(list))[name].append(row)
    tables: dict[str, list[dict[str, str]]] = {"clips": [], "test": []}
    for (label, is_test), recordings in sorted(groups.items()):
        names = list(rng.permutation(sorted(recordings)))
        table = "test" if is_test else "clips"
        for name in names[: TEST_RECORDINGS if is_test else TRAIN_RECORDINGS]:
            count = 1 if is_test else CLIPS_A_RECORDING
            chosen = rng.permutation(len(recordings[name]))[:count]
            for number in chosen:
                row = recordings[name][number]
                file = write_clip(sounds / row["path"], out / table, label, len(tables[table]))
                tables[table].append(line(file, label, name))
    for table, lines in tables.items():
        write_table(out / f"{table}.csv", lines)
        recordings_here = len({one["recording"] for one in lines})
        print(f"{table}.csv: {len(lines)} clips of {recordings_here} recordings")


def line(file: str, label: str, recording: str) -> dict[str, str]:
    """The row of a clip, as a user would write it."""
    captions = {f"caption_{i}": text for i, text in enumerate(SENTENCES[label], start=1)}
    return {"audio": file, "recording": recording, **captions}


def write_clip(source: Path, folder: Path, label: str, number: int) -> str:
    """Writes up to ten seconds of `source` as 16 kHz FLAC; its path below the folder's parent."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{label}-{number:03d}.flac"
    soundfile.write(file, audio.load(source, RATE)[: round(SECONDS * RATE)], RATE)
    return f"{folder.name}/{file.name}"


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def earwitness(*words: object) -> None:
    """Runs a command of the product and ends with it where it fails."""
    print("$ earwitness", *words, flush=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "earwitness", *map(str, words)], check=True)
    print(f"({time.perf_counter() - started:.0f} s)", flush=True)


def fine_tune(out: Path, seed: int, changes: Sequence[str]) -> Path:
    """Prepares and trains as docs/finetune.md does, unless that was done; the model's folder."""
    run = out / f"seed-{seed}"
    if not (run / "best" / "earwitness.json").is_file():
        mine = out / f"mine-{seed}.csv"
        earwitness(
            "prepare", "csv", out / "clips.csv", "-o", mine, "--group-column", "recording",
            "--random-split", "0.15", "--seed", seed,
        )  # fmt: skip
        sources = [f"source.{s}={mine.with_suffix('')}.{s}.csv" for s in ("train", "validation")]
        options = [("--set", change) for change in (*sources, f"fit.seed={seed}", *changes)]
        earwitness("train", RECIPE, "--run", run, *(word for pair in options for word in pair))
    return run / "best"


def caption(out: Path, dev: Path, model: str, name: str) -> tuple[Path, Path]:
    """Captions of the test clips and of the development recordings, as files made once."""
    files = out / f"{name}.csv", out / f"{name}-dev.csv"
    for file, sounds in zip(files, (out / "test", dev), strict=True):
        if not file.is_file():
            earwitness("caption", sounds, "--model", model, "-o", file, "--quiet")
    return files


def read_captions(path: Path) -> dict[str, str]:
    """Captions by the file's name without its ending."""
    with path.open(newline="", encoding="utf-8") as file:
        return {Path(row["file"]).stem: row["caption"] for row in csv.DictReader(file)}


def named(caption: str, label: str, alone: bool) -> bool:
    """Whether a caption names the kind of sound, and with `alone` no other kind."""
    said = {one for one, words in NAMES.items() if re.search(rf"\b({words})\b", caption.lower())}
    return said == {label} if alone else label in said


def interval(values: np.ndarray, resamples: int = 1000) -> tuple[float, float, float]:
    """Mean of `values`, one per clip, with its 95 % bootstrap interval over clips."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def report(out: Path, data: Path, runs: dict[str, list[tuple[Path, Path]]]) -> None:
    """Prints a row for each run, and for each system the means of its seeds by clip."""
    clips = read_clips(out / "test.csv")
    truth = {Path(str(clip.place)).stem: list(clip.captions) for clip in clips}
    files, references = read_recordings(data / "dev")
    dev = {file.stem: texts for file, texts in zip(files, references, strict=True)}
    print("\n| captions | " + " | ".join(METRICS) + " | names it | names it alone | dev CIDEr-D |")
    print("|---|" + "---|" * (len(METRICS) + 3))
    means: list[list[np.ndarray]] = []
    for name, made in runs.items():
        measured = [measure(one, truth, dev) for one in made]
        for seed, cells in enumerate(measured if len(made) > 1 else []):
            print(row(f"{name}, seed {seed}", cells))
        means.append([np.mean(cells, axis=0) for cells in zip(*measured, strict=True)])
        print(row(f"{name}, mean of {len(made)}", means[-1]))
    before, after = means
    print(row("difference", [b - a for a, b in zip(before, after, strict=True)]))


def measure(
    made: tuple[Path, Path], truth: dict[str, list[str]], dev: dict[str, list[str]]
) -> list[np.ndarray]:
    """What the columns of the table are means of: a number per test clip or dev recording."""
    said, old = map(read_captions, made)
    per_clip = scores(said, truth)
    cells = [np.array([clip[metric] for clip in per_clip]) for metric in METRICS]
    for alone in (False, True):
        right = [named(said[k], k.rpartition("-")[0], alone) for k in truth]
        cells.append(np.array(right, dtype=float))
    return [*cells, np.array([clip["cider_d"] for clip in scores(old, dev)])]


def row(name: str, cells: Sequence[np.ndarray]) -> str:
    """One line of the table."""
    shown = ("{:.3f} [{:.3f}, {:.3f}]".format(*interval(cell)) for cell in cells)
    return f"| {name} | " + " | ".join(shown) + " |"


def scores(said: dict[str, str], truth: dict[str, list[str]]) -> list[dict[str, float]]:
    """Each clip's scores."""
    captions = [said[k] for k in truth]
    done = evaluate(captions, list(truth.values()), metrics=list(METRICS), resamples=0)
    return list(done.per_clip)


if __name__ == "__main__":
    main()
