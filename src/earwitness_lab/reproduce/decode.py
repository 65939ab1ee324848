"""Captions of a test set, on one process or shared among several.

    python -m earwitness_lab.reproduce.decode MODEL MANIFEST -o captions.jsonl
    accelerate launch --num_processes 4 -m earwitness_lab.reproduce.decode MODEL MANIFEST -o ...

Each process captions every n-th clip on its own GPU and appends its results to its own file;
at the end the main one merges them. The same command continues where it stopped, on any number of
processes, as long as the model is the same.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track

from earwitness.data.manifest import Clip, read_manifest
from earwitness.errors import DataError
from earwitness.models.names import model_folder
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.distributed import processes

BATCH = 8
"""clips that are captioned together"""


def clips_to_caption(path: Path) -> list[Clip]:
    """The clips of a test manifest, or of the folder `dev` of the data folder. Raises DataError."""
    clips = read_manifest(path)
    if path.parent.name == "dev":
        clips = [
            Clip(clip.id, path.parent / "clips" / Path(str(clip.place)).name, clip.captions)
            for clip in clips
        ]
    for clip in clips:
        if not clip.captions:
            raise DataError(f"{path}: clip '{clip.id}' has no caption to compare with")
    return clips


def decode(model: Path, clips: Sequence[Clip], path: Path) -> dict[str, str]:
    """The caption of each clip by its id, also written to `path`, one JSON object per line.

    On several processes all call this, and all get all captions. What an earlier, stopped call
    wrote with the same weights is kept.
    """
    mark = (model / "earwitness.json").stat().st_mtime_ns
    known = _known(path, mark)
    todo = [clip for clip in clips if clip.id not in known]
    _wait()
    share = todo[_rank() :: processes()]
    if share:
        _caption(model, share, _part(path, _rank()), mark)
    _wait()
    known = _known(path, mark)
    if _rank() == 0:
        draft = path.with_suffix(".new")
        lines = [_line(clip.id, known[clip.id], mark) for clip in clips]
        draft.write_text("".join(lines), encoding="utf-8")
        draft.replace(path)
    _wait()
    if _rank() == 0:
        for part in _parts(path):
            part.unlink()
    return {clip.id: known[clip.id] for clip in clips}


def _caption(model: Path, clips: Sequence[Clip], part: Path, mark: int) -> None:
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    captioner = TorchCaptioner.load(model, device)
    quiet = len(clips) < 100 or _rank() > 0
    with part.open("a", encoding="utf-8") as file:
        for start in track(range(0, len(clips), BATCH), "captioning", disable=quiet):
            batch = clips[start : start + BATCH]
            found = captioner.caption_batch([clip.audio for clip in batch])
            for clip, caption in zip(batch, found, strict=True):
                file.write(_line(clip.id, caption.text, mark))
            file.flush()


def _line(name: str, text: str, mark: int) -> str:
    return json.dumps({"id": name, "caption": text, "weights": mark}) + "\n"


def _known(path: Path, mark: int) -> dict[str, str]:
    """Captions of the weights that `mark` stands for; half a line left by a kill is ignored."""
    known = {}
    for file in (path, *_parts(path)):
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row.get("weights") == mark:
                known[row["id"]] = row["caption"]
    return known


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.stem}.part{rank}{path.suffix}")


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _wait() -> None:
    if processes() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def main() -> None:
    """Reads the command line and captions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="a model folder, or the name of a shipped model")
    parser.add_argument("manifest", type=Path, help="a manifest with captions to compare with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON Lines")
    args = parser.parse_args()
    decode(Path(model_folder(args.model)), clips_to_caption(args.manifest), args.output)


if __name__ == "__main__":
    main()
