"""What the Token Guide does to the loss of content words, with another clip's guide as control.

    python benchmarks/guide.py --data ../shared/data pocket-lamb centered=runs/c0/best,runs/c1/best

A model is a name or a folder, or NAME=FOLDER; several seeds of one recipe are NAME=FOLDER,FOLDER.
Content words are tokens that are whole words and no function words. Intervals are 95 %, by a
hierarchical bootstrap over recordings and seeds; less than zero means that the guide helps.
"""

import argparse
from pathlib import Path

from dev import model_of

from earwitness import audio
from earwitness.system.captioner import TorchCaptioner
from earwitness_lab.pocket.development import SETS, read_development
from earwitness_lab.pocket.guide_effect import content_losses, difference, guide_shape


def main() -> None:
    """Reads the command line and prints one table per model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="model, or name=folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", choices=SETS, default="both")
    parser.add_argument("--scales", type=float, nargs="*", default=[1.0, 5.0, 10.0])
    args = parser.parse_args()
    files, references = read_development(args.data, args.set)
    for model in map(model_of, args.models):
        captioners = [TorchCaptioner.load(folder) for folder in model.seeds]
        rate = captioners[0].encoder.sample_rate
        waveforms = [audio.load(file, rate) for file in files]
        runs = [content_losses(one, waveforms, references, args.scales) for one in captioners]
        print(f"\n## {model.name}: {len(files)} recordings, {len(runs)} seeds\n")
        for folder, one in zip(model.seeds, captioners, strict=True):
            shape = guide_shape(one, waveforms)
            print(
                f"{folder}: correlation with -|e|^2 {shape.norm_correlation:.3f}; standard "
                f"deviation {shape.spread:.3f} logits, of the clip's own part "
                f"{shape.clip_spread:.3f}"
            )
        print("\n| guide | against none | against another clip's |")
        print("|---|---|---|")
        for name in runs[0]:
            if name != "off" and not name.endswith("other"):
                other = "other" if name == "own" else f"{name}, other"
                cells = [difference(runs, name, control) for control in ("off", other)]
                shown = (f"{m:+.4f} [{low:+.4f}, {high:+.4f}]" for m, low, high in cells)
                print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
