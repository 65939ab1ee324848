"""Puts a trained Diffusion-Link into the package beside pocket-lamb, whose encoder it shares.

    python benchmarks/ship_link.py runs/pocket_link_zeroshot/best --data ../shared/data

pocket-lamb must be there first, and with the encoder that the dual encoder was trained on.
"""

import shutil

from dev import caption_all
from pocket import LINK_STAGES
from ship import (
    LICENSE,
    LIMITS,
    PACKAGE,
    arguments,
    evaluation,
    finish,
    measured,
    megabytes,
    parameters,
    seeds,
    sources,
    stage,
)

from earwitness import Captioner
from earwitness.models.card import CardFacts
from earwitness.models.names import share_part
from earwitness_lab.pocket.development import read_recordings

DESCRIPTION = """{parameters:.1f} M parameters that run offline on a CPU: a small CLAP-style dual
encoder over pocket-lamb's audio encoder, the bridge, a projector to one token, and a small Llama of
our own. {size:.1f} MB in half precision beside pocket-lamb, with which it shares the audio encoder.

Protocol: **zero-shot**, in the paper's sense. Projector and language model were trained on text
alone and never heard audio; the dual encoder and the bridge were trained on pairs of sound and
caption."""

SCORES = """Five captions each, never trained on. 95 % intervals by bootstrap over recordings; one
training seed. pocket-lamb captions better: this model is here to try the bridge on. The comparison
with other bridges is in docs/link_results.md."""

DATA = """The same scenes and captions as pocket-lamb: {clips:,} labeled sounds mixed to match
human captions of the AudioCaps training split, without those of the recordings that it was measured
on; the language model began with those of Clotho too.

Sources: {names}."""

LICENSE_NOTE = """Some sources are for research or non-commercial use only, and so are these
weights; the code around them is Apache-2.0. Sounds by kind of license: {kinds}."""


def main() -> None:
    """Copies the model, shares its audio encoder, writes metrics.json, its facts and README.md."""
    args = arguments(__doc__).parse_args()
    target = PACKAGE / "pocket-link"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(args.model, target)
    share_part(target, "encoder/audio", "pocket-lamb", "encoder")
    files, references = read_recordings(args.data / "dev")
    captions, _ = caption_all("pocket-link", files)
    metrics = measured(captions, references)
    known = {
        "parameters": parameters(Captioner.load("pocket-link")),
        "size": megabytes(target),
        **sources(args.data),
    }
    facts = CardFacts(
        summary=f"Diffusion-Link, zero-shot, {known['parameters']:.1f} M parameters, CIDEr-D "
        f"{metrics['cider_d'].value:.2f} on {len(files)} AudioCaps validation clips",
        license=LICENSE,
        license_note=LICENSE_NOTE.format(**known),
        description=DESCRIPTION.format(**known),
        metrics=metrics,
        evaluation=evaluation(len(files), SCORES),
        seeds=seeds(LINK_STAGES),
        stages=tuple(stage(name) for name in LINK_STAGES),
        data=DATA.format(**known),
        limits=LIMITS,
    )
    finish(target, facts)
    total = sum(megabytes(path) for path in PACKAGE.glob("pocket-*"))
    print(f"all pocket models: {total:.1f} MB")


if __name__ == "__main__":
    main()
