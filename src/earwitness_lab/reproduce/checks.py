"""What a reproduction needs, checked before anything is trained: data, weights, disk, GPU memory,
metrics. Nothing is downloaded unless that is asked for.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from earwitness.data.manifest import Clip, read_manifest
from earwitness.data.prepare.counts import LAMB_AUDIOCAPS_CLIPS, PUBLISHED, WAVCAPS_CLIPS
from earwitness.errors import CheckpointError, DataError, EarwitnessError
from earwitness.models.hub import FETCHED, LEFT, HubName, hub_name, resolve
from earwitness.training.sources import ManifestSource
from earwitness_lab.reproduce.gpu import card_need
from earwitness_lab.reproduce.memory import GIB
from earwitness_lab.reproduce.plan import WEIGHTS, Plan, Stage

State = Literal["ok", "note", "missing"]

WEIGHT_BYTES = {
    "mispeech/ced-base": 0.34e9,
    "laion/clap-htsat-unfused": 0.61e9,
    "meta-llama/Llama-2-7b-chat-hf": 13.5e9,
}
"""about, from the number of weights: what a download brings"""

GATED = ("meta-llama/",)
"""owners that want a license to be accepted first"""

RUN_BYTES = {"paper": 3e9, "pocket": 2e9, "tiny": 2e7}
"""of one stage, about: best and last weights, two checkpoints, logs, caches"""

SHARE = 0.9
"""of the published number of clips: with fewer the table says little about the paper"""

_LOOKED_AT = 100


@dataclass(frozen=True)
class Check:
    """One thing that was checked. "note" does not stop anything, "missing" does."""

    state: State
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.subject}: {self.detail}"


def check_all(
    plan: Plan, *, download: bool = False, sbert: str | None = None, fluency: str | None = None
) -> Iterator[Check]:
    """All checks of what `plan` still has to do, one after the other."""
    todo = [stage for stage in plan.selected() if not stage.finished]
    if plan.size != "tiny":
        yield from _data(plan, todo)
        yield from _weights(plan, todo, download)
    yield _disk(plan, todo)
    if plan.size == "paper":
        yield from card_checks(todo)
    if plan.evaluates:
        yield from _metrics(sbert, fluency)


def _data(plan: Plan, todo: Sequence[Stage]) -> Iterator[Check]:
    manifests: dict[Path, None] = {}
    folders: dict[Path, None] = {}
    for stage in todo:
        source = getattr(stage.recipe, "source", None)
        if isinstance(source, ManifestSource):
            manifests |= dict.fromkeys((*source.train_files, source.validation))
        elif stage.data:
            folders[stage.data] = None
    yield from (_folder(folder) for folder in folders)
    if plan.evaluates:
        manifests |= dict.fromkeys(row.test for row in plan.rows)
    yield from (check_manifest(path) for path in manifests)
    black = [path for path in manifests if path.stem == "wavcaps"]
    yield from (check for path in black if (check := _leakage(path)))


def _folder(folder: Path) -> Check:
    lacking = [
        name
        for name in ("train_audio", "captions", "dev/captions.csv", "yamnet")
        if not (folder / name).exists()
    ]
    if lacking:
        what = f"lacks {', '.join(lacking)}; docs/scenes.md describes it, --data names it"
        return Check("missing", str(folder), what)
    return Check("ok", str(folder), "data folder for scenes")


def check_manifest(path: Path) -> Check:
    """Whether the manifest is there, its sounds exist, and how far its counts are from those of the
    release. Of many sounds, a hundred are checked.
    """
    dev = path.parent.name == "dev"
    try:
        clips = read_manifest(path)
    except DataError as error:
        return Check("missing", str(path), f"{_reason(error, path)}; make it with {_maker(path)}")
    blank = next((clip for clip in clips if not clip.captions), None)
    if blank:
        return Check("missing", str(path), f"clip '{blank.id}' has no caption; leave it out")
    step = max(1, len(clips) // _LOOKED_AT)
    lost = [clip for clip in clips[::step] if not dev and not _is_there(clip)]
    if lost:
        what = f"clip '{lost[0].id}': no sound file {lost[0].place}; make the manifest again"
        return Check("missing", str(path), f"{what} with {_maker(path)}")
    captions = sum(len(clip.captions) for clip in clips)
    detail = f"{len(clips):,} clips, {captions:,} captions"
    wanted = expected_clips(path)
    if not wanted:
        return Check("ok", str(path), detail)
    detail += "; published " + ", ".join(f"{name} {number:,}" for name, number in wanted.items())
    few = len(clips) < SHARE * min(wanted.values())
    more = f"; fewer than {SHARE:.0%}: the table will say little about the paper"
    return Check("note" if few else "ok", str(path), detail + more * few)


def expected_clips(path: Path) -> dict[str, int]:
    """Published numbers of clips of a manifest that is called as `earwitness prepare` calls it."""
    name, _, split = path.stem.partition(".")
    if name == "wavcaps":
        return {"WavCaps": WAVCAPS_CLIPS}
    releases = PUBLISHED.get((name, split), {})
    numbers = {
        release: clips
        for release, (_, clips) in releases.items()
        if release not in ("Clotho 1", "AudioCaps 2.0")
    }
    if path.stem == "audiocaps.train":
        numbers["LAMB"] = LAMB_AUDIOCAPS_CLIPS
    return numbers


def _is_there(clip: Clip) -> bool:
    return (clip.place if isinstance(clip.place, Path) else clip.place.shard).is_file()


def _maker(path: Path) -> str:
    name = path.stem.partition(".")[0]
    if name not in ("audiocaps", "clotho", "wavcaps"):
        return "earwitness prepare"
    return f"'earwitness prepare {name} ... -o {path.parent / name}.csv' (docs/reproduce.md)"


def _reason(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _leakage(path: Path) -> Check | None:
    report = path.with_name(f"{path.name}.report.json")
    try:
        excluded = json.loads(report.read_text(encoding="utf-8"))["excluded_by_file"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not excluded:
        what = "made without --exclude: it holds clips of the test sets (docs/data.md, Leakage)"
        return Check("note", str(path), what)
    clips = sum(excluded.values())
    return Check("ok", str(path), f"{clips:,} clips left out by {len(excluded)} lists")


def _weights(plan: Plan, todo: Sequence[Stage], download: bool) -> Iterator[Check]:
    seen: set[Path] = set()
    for stage in todo:
        for key in WEIGHTS:
            name = getattr(stage.recipe, key, None)
            if not isinstance(name, Path) or name in seen:
                continue
            seen.add(name)
            maker = plan.maker(name)
            if maker is None:
                yield check_weights(name, download)
            elif not maker.finished and maker not in plan.selected():
                what = f"stage '{maker.name}' leaves it there; run that first"
                yield Check("missing", str(name), what)


def check_weights(name: Path, download: bool = False) -> Check:
    """Whether the weights are a folder here, or complete in the hub's cache; if not, what the hub
    says about them. With `download` they are fetched.
    """
    if name.expanduser().is_dir():
        return Check("ok", str(name), "a folder here")
    wanted = hub_name(name)
    if wanted is None:
        return Check("missing", str(name), "no such folder")
    folder = cached(wanted)
    if folder is None and download:
        try:
            folder = resolve(name)
        except CheckpointError as error:
            return Check("missing", str(name), _reason(error, name))
    if folder is not None:
        return Check("ok", str(name), f"in the cache, {_folder_bytes(folder) / 1e9:.2f} GB")
    detail = _of_hub(wanted)
    fetch = f"call 'earwitness models fetch {name}', or add --download"
    return Check("missing", str(name), f"{detail}; {fetch}")


def cached(wanted: HubName) -> Path | None:
    """The snapshot of `wanted` in the hub's cache where all its safetensors are there."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        found = huggingface_hub.snapshot_download(
            wanted.repo,
            revision=wanted.revision,
            allow_patterns=FETCHED,
            ignore_patterns=LEFT,
            local_files_only=True,
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None
    folder = Path(found)
    needed = {"model.safetensors"}
    for index in folder.glob("*.safetensors.index.json"):
        try:
            needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return None
    whole = all((folder / file).is_file() for file in (*needed, "config.json"))
    return folder if whole else None


def _of_hub(wanted: HubName) -> str:
    """What can be said of weights that are not here, without fetching them."""
    from huggingface_hub import HfApi, constants, errors

    size = WEIGHT_BYTES.get(wanted.repo)
    detail = f"not in the cache {constants.HF_HUB_CACHE}"
    detail += f", about {size / 1e9:.1f} GB" if size else ""
    page = f"https://huggingface.co/{wanted.repo}"
    consent = f"gated: accept the license at {page} and call 'hf auth login'"
    if constants.HF_HUB_OFFLINE:
        gated = wanted.repo.startswith(GATED)
        return f"{detail}, HF_HUB_OFFLINE is set" + (f"; {consent}" if gated else "")
    try:
        HfApi(library_name="earwitness").auth_check(wanted.repo)
    except errors.GatedRepoError:
        return f"{detail}, {consent}"
    except errors.RepositoryNotFoundError:
        return f"{detail}, and the hub has no such repository for this login"
    except (errors.HTTPError, OSError):  # type: ignore[attr-defined]
        return f"{detail}, and huggingface.co cannot be reached"
    return f"{detail}; this login may fetch it"


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _disk(plan: Plan, todo: Sequence[Stage]) -> Check:
    place = plan.runs.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    need = RUN_BYTES[plan.size] * len(todo)
    detail = f"{free / 1e9:.1f} GB free, about {need / 1e9:.1f} GB needed for {len(todo)} stages"
    if free < need:
        return Check("missing", f"disk {plan.runs}", f"{detail}; name another folder with --runs")
    return Check("ok", f"disk {plan.runs}", detail)


def card_checks(todo: Sequence[Stage], card: float | None = None) -> Iterator[Check]:
    """Whether each stage with a language model fits on the card; `card` in bytes, this machine's
    if not given, 0 for none.
    """
    import torch

    if card is None:
        there = torch.cuda.is_available()
        card = float(torch.cuda.get_device_properties(0).total_memory) if there else 0.0
    for stage in todo:
        need = card_need(stage.recipe)
        if need is None:
            continue
        detail = (
            f"about {need.bytes / GIB:.0f} GiB at batch {stage.recipe.fit.batch_size} (counted)"
        )
        subject = f"GPU for {stage.name}"
        if not card:
            yield Check("missing", subject, f"{detail}, and there is no CUDA GPU here")
        elif need.bytes > card:
            what = f"{detail}, the card has {card / GIB:.0f} GiB; {need.advice(card)}"
            yield Check("missing", subject, what)
        else:
            yield Check("ok", subject, f"{detail}, the card has {card / GIB:.0f} GiB")


def _metrics(sbert: str | None, fluency: str | None) -> Iterator[Check]:
    from earwitness.evaluation.doctor import examine

    for part in examine(sbert=sbert, fluency=fluency):
        state: State = "ok" if part.usable else "note"
        detail = part.detail if part.usable else f"'-' in the table: {part.detail}"
        yield Check(state, f"{part.part} ({', '.join(part.metrics)})", detail)


def first_missing(checks: Sequence[Check]) -> EarwitnessError | None:
    """What stops the run, as one error."""
    missing = [check for check in checks if check.state == "missing"]
    if not missing:
        return None
    first = missing[0]
    more = f" (and {len(missing) - 1} more above)" if len(missing) > 1 else ""
    return DataError(f"nothing was run: {first.subject}: {first.detail}{more}")


def stage_clips(stage: Stage) -> int:
    """Published number of items that an epoch of the stage visits; 0 if none is known."""
    source = getattr(stage.recipe, "source", None)
    if not isinstance(source, ManifestSource):
        return 0
    known = [list(expected_clips(path).values()) for path in source.train_files]
    return sum(numbers[-1] for numbers in known if numbers)
