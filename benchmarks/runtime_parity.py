"""Captions of the torch captioner and of the ONNX runtime on the same sounds, and every difference.

    python benchmarks/runtime_parity.py --data ../shared/data [--scenes 500] pocket-lamb pocket-link

Sounds are the recordings of dev/ and dev2/ and, with `--scenes`, mixes of the training sounds. For
a difference the margin is what separates torch's two best captions in the logarithm of their
length-normalized probability: below about 1e-5 the order of additions decides.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from earwitness import audio
from earwitness.runtime import RuntimeCaptioner
from earwitness.system.captioner import TorchCaptioner

RATE = 16000
BATCH = 8


def main() -> None:
    """Reads the command line and prints a table, one row per model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scenes", type=int, default=0, help="mixes beside the recordings")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sounds = [*recordings(args.data), *scenes(args.data, args.scenes)]
    print(
        "| model | sounds | different captions | largest difference of a score | torch CPU s |"
        " runtime CPU s |"
    )
    print("|---|---|---|---|---|---|")
    for model in args.models:
        print(row(model, sounds, args.threads), flush=True)


def recordings(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The development recordings."""
    for path in sorted(data.glob("dev*/clips/*")):
        yield path.stem, audio.load(path, RATE)


def scenes(data: Path, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Random mixes of the training sounds."""
    if not count:
        return
    from earwitness_lab.scenes.mixing import random_scene
    from earwitness_lab.scenes.soundbank import SoundBank

    bank = SoundBank.load(data / "train_audio")
    for number in range(count):
        scene = random_scene(bank, np.random.default_rng((15, number)), 10.0)
        yield f"scene {number}", scene.waveform


def row(model: str, sounds: Sequence[tuple[str, np.ndarray]], threads: int) -> str:
    """A row of the table; prints the differences first."""
    with_torch, runtime = TorchCaptioner.load(model), RuntimeCaptioner.load(model, threads=threads)
    different, furthest, seconds = 0, 0.0, [0.0, 0.0]
    for start in range(0, len(sounds), BATCH):
        part = sounds[start : start + BATCH]
        waveforms = [waveform for _, waveform in part]
        found = []
        for number, captioner in enumerate((with_torch, runtime)):
            started = time.process_time()
            found.append(captioner.caption_waveforms(waveforms))
            seconds[number] += time.process_time() - started
        for (name, waveform), first, second in zip(part, *found, strict=True):
            if first[0].text != second[0].text:
                different += 1
                print(
                    f"{name}: {first[0].text!r} and {second[0].text!r}, "
                    f"margin {margin(with_torch, waveform):.2g}"
                )
            else:
                furthest = max(furthest, abs(first[0].score - second[0].score))
    return (
        f"| {model} | {len(sounds)} | {different} | {furthest:.1g} | {seconds[0]:.1f} | "
        f"{seconds[1]:.1f} |"
    )


def margin(captioner: TorchCaptioner, waveform: np.ndarray) -> float:
    """What separates torch's two best captions, in the logarithm that the search compares."""
    own = captioner.decoding
    several = own.model_copy(update={"n_best": max(2, own.beam_size)})
    best = captioner.caption_waveforms([waveform], several)[0][:2]
    merits = []
    for caption in best:
        tokens = len(captioner.decoder.tokenizer(caption.text).input_ids) + 1
        merits.append(np.log(caption.score) * tokens ** (1 - own.length_penalty))
    return abs(merits[0] - merits[1])


if __name__ == "__main__":
    main()
