"""Scores captioners on the development recordings: `dev`, `dev2`, and both together.

    python benchmarks/dev.py --data ../shared/data pocket-lamb pocket-lamb+4 pocket-link

A model is a name or a folder, or NAME=FOLDER. Several seeds of one recipe are NAME=FOLDER,FOLDER:
their scores are means over seeds. `@0` after a folder switches the Token Guide off in decoding,
`@int8` computes an ONNX model in int8, `+N` takes the consensus of its N best captions, `+events`
puts 4 in order by the class head beside its encoder too, and FOLDER&FOLDER takes the consensus of
the N best of both (4 without `+N`).

One table per set with bootstrap 95 % intervals over recordings, and one with paired differences
from the first model. `--keep` remembers captions in a folder; `--json` writes the scores on the
last set, as docs/figures/dev.json holds them; `--captions out.md` writes the first model's captions
with their scores; `--show` prints them beside a human one, which stays out of any file.
"""

import argparse
import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from dev_tables import Model, print_tables, scored, slowly, write_figures

from earwitness import Captioner, audio, evaluate
from earwitness.caption import Caption, CaptionCalls, Decoding, Reranks
from earwitness.captioning.heard import EVENTS, EventReranker
from earwitness.captioning.rerank import CONSENSUS, Reranker
from earwitness.system.captioner import AudioTokens, TorchCaptioner
from earwitness_lab.pocket.consensus import agreed, n_best
from earwitness_lab.pocket.development import SETS, read_development, read_recordings

RATE = 16000
_SUFFIX = re.compile(r"(?:\+(?P<how>\d+|events))?$")
BATCH = 8


class Said(NamedTuple):
    """A caption, and its score: with consensus the agreement, else the mean token probability."""

    text: str
    score: float


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="model, or name=folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--keep", type=Path, help="folder that remembers captions")
    parser.add_argument("--captions", type=Path, help="Markdown file for the first model")
    parser.add_argument("--show", action="store_true", help="print captions beside a human one")
    parser.add_argument("--json", type=Path, help="file for the scores on all sets together")
    parser.add_argument("--set", action="append", default=[], help="decoding key=value")
    args = parser.parse_args()
    models = [model_of(text) for text in args.models]
    captions = [
        [kept_captions(seed, args.data, args.set, args.keep) for seed in model.seeds]
        for model in models
    ]
    slow = slowly(args.data, captions)
    for name in args.sets:
        scores = scored(name, args.data, captions, slow)
        print_tables(name, models, scores)
        if args.json and name == args.sets[-1]:
            write_figures(args.json, name, models, scores)
    files, references = read_recordings(args.data / "dev")
    first = captions[0][0][: len(files)]
    if args.captions:
        args.captions.write_text(table(files, first, evaluate(first, references)), encoding="utf-8")
    if args.show:
        files, references = read_development(args.data)
        for file, caption, texts in zip(files, captions[0][0], references, strict=True):
            print(f"{file.stem}\n    {caption}\n    ({texts[0]})")


def model_of(text: str) -> Model:
    """NAME=FOLDER,FOLDER as a row; a folder alone names itself."""
    name, _, folders = text.rpartition("=")
    return Model(name or folders, folders.split(","))


def kept_captions(model: str, data: Path, changes: Sequence[str], folder: Path | None) -> list[str]:
    """The captions of the recordings of both sets, made once where `folder` remembers them."""
    key = hashlib.sha256(json.dumps([model, *changes]).encode()).hexdigest()[:16]
    path = folder / f"{key}.json" if folder else None
    if path and path.exists():
        return json.loads(path.read_text())["captions"]
    captions, seconds = caption_with(model, read_development(data).files, changes)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"model": model, "changes": [*changes], "seconds": seconds, "captions": captions}
        path.write_text(json.dumps(found, indent=1))
    return captions


def caption_with(
    model: str, files: list[Path], changes: Sequence[str] = ()
) -> tuple[list[str], float]:
    """Captions of a model as the command line names it, and how long they took together."""
    start = time.perf_counter()
    waveforms = [audio.load(file, RATE) for file in files]
    captions = [caption.text for caption in caption_waveforms(model, waveforms, changes)]
    return captions, time.perf_counter() - start


def caption_waveforms(
    model: str, waveforms: Sequence[np.ndarray], changes: Sequence[str] = ()
) -> list[Said]:
    """What a model as the command line names it says of each waveform at 16 kHz."""
    match = _SUFFIX.search(model)
    assert match
    folders, how = model[: match.start()].split("&"), match["how"]
    places = [folder.removesuffix("@int8").removesuffix("@0") for folder in folders]
    captioners = [Captioner.load(place) for place in places]
    with ExitStack() as computing:
        for captioner, folder in zip(captioners, folders, strict=True):
            kind = "int8" if folder.endswith("@int8") else "fp32"
            computing.enter_context(captioner.precision(kind))
        return _said(captioners, folders, how, waveforms, changes)


def _said(
    captioners: list[Captioner],
    folders: list[str],
    how: str | None,
    waveforms: Sequence[np.ndarray],
    changes: Sequence[str],
) -> list[Said]:
    settings = [changed(one.decoding, changes) for one in captioners]
    settings = [
        one.model_copy(update={"guide_strength": 0.0}) if folder.endswith("@0") else one
        for one, folder in zip(settings, folders, strict=True)
    ]
    if len(captioners) > 1:
        several = [
            n_best(captioner, waveforms, int(how or 4), decoding)
            for captioner, decoding in zip(captioners, settings, strict=True)
        ]
        return [Said(*agreed(row)) for row in zip(*several, strict=True)]
    rerank = reranker(how, captioners[0])
    found: list[Said] = []
    for start in range(0, len(waveforms), BATCH):
        part = list(waveforms[start : start + BATCH])
        if rerank:
            rows = rerank.captions(captioners[0], part, settings[0])
        else:
            rows = captioners[0].caption_waveforms(part, settings[0])
        found += [Said(row[0].text, _score(row[0])) for row in rows]
    return found


def reranker(how: str | None, captioner: Captioner) -> Reranks | None:
    """What "+N" or "+events" after a model's name stands for; events by its own class head."""
    if how is None:
        return None
    if how == EVENTS:
        assert isinstance(captioner, CaptionCalls)
        assert captioner.classes is not None
        return EventReranker(captioner.classes, as_score=True)
    return Reranker(CONSENSUS, 1.0, candidates=int(how))


def _score(caption: Caption) -> float:
    return caption.score if caption.rerank is None else caption.rerank


def caption_all(
    model: str, files: list[Path], without_guide: bool = False, changes: Sequence[str] = ()
) -> tuple[list[str], float]:
    """Captions of a model folder and how long they took together."""
    return caption_with(f"{model}@0" if without_guide else model, files, changes)


def changed(decoding: Decoding, changes: Sequence[str]) -> Decoding:
    """`decoding` with the key=value pairs of the command line."""
    return Decoding.model_validate(
        decoding.model_dump() | dict(change.split("=", 1) for change in changes), strict=False
    )


@torch.inference_mode()
def caption_losses(
    captioner: TorchCaptioner, files: list[Path], references: list[list[str]]
) -> np.ndarray:
    """Mean loss (nats per token) of the references of each recording, with the guide if there is
    one. It varies far less from run to run than scores of single captions do.
    """
    found = []
    for file, texts in zip(files, references, strict=True):
        waveform = audio.load(file, captioner.encoder.sample_rate)
        z, mask = captioner.audio_tokens(captioner.encode([waveform]))
        tokens = AudioTokens(z.expand(len(texts), -1, -1), mask.expand(len(texts), -1))
        losses = captioner.losses(tokens, texts, torch.arange(len(texts)))
        found.append(float(losses.get("guide", losses["decode"])))
    return np.array(found)


def table(files: list[Path], captions: list[str], scores: object) -> str:
    """Markdown: recording, caption, CIDEr-D."""
    lines = ["| recording | caption | CIDEr-D |", "|---|---|---|"]
    for file, caption, per in zip(files, captions, scores.per_clip, strict=True):  # type: ignore[attr-defined]
        lines.append(f"| {file.stem} | {caption} | {per['cider_d']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
