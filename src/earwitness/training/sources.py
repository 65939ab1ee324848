"""Where training clips come from: a manifest of recordings, a Hugging Face dataset, synthetic
sounds, or a source that another package registered.

An item is a dict with a caption's `text`, the number of its recording (`clip`), and either cached
`frames` of the frozen encoder or a `waveform`.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch.utils.data import Dataset

from earwitness import audio
from earwitness.data.manifest import Clip, read_manifest
from earwitness.data.synthetic import synthetic_clip
from earwitness.encoders.base import FrameEncoder, Frames
from earwitness.errors import ConfigError, DataError
from earwitness.plugins import plugins
from earwitness.text import normalize
from earwitness.training.datasets_source import DatasetsSource
from earwitness.training.feature_cache import FeatureCache, read_frames
from earwitness.training.progress import tracked
from earwitness.training.source import Item, Opening, SourceConfig, Splits, cropped

_MANY = 1000
"""clips whose headers take long enough to read for a progress bar"""


class ManifestSource(SourceConfig):
    """Recordings with captions, as in the paper; longer clips are cut to `seconds`."""

    kind: Literal["manifest"]
    train: Path | Annotated[tuple[Path, ...], Field(min_length=1)]
    """a manifest, or several to train on together"""
    validation: Path
    seconds: PositiveFloat = 10.0
    crop: Literal["random", "start"] = "random"
    """which part of a longer clip is used: a different one each time, or the first"""
    cache: bool = False
    """keeps the frames of the frozen encoder on disk, in the folder of the runs"""

    @property
    def train_files(self) -> tuple[Path, ...]:
        """The training manifests, one or several."""
        return self.train if isinstance(self.train, tuple) else (self.train,)

    def open(self, opening: Opening) -> Splits:
        """Recordings as waveforms, or as cached frames of the frozen encoder."""
        return _manifest(self, opening)


class SyntheticSource(SourceConfig):
    """Tones, noise and clicks with true sentences; for a first look and for tests."""

    kind: Literal["synthetic"]
    clips: PositiveInt = 320
    heldout_clips: PositiveInt = 40
    seconds: PositiveFloat = 2.0
    seed: int = 0

    def open(self, opening: Opening) -> Splits:
        """New clips, the same for the same seed."""
        train = _Synthetic(self, 0, self.clips)
        heldout = _Synthetic(self, self.clips, self.heldout_clips)
        return Splits(train, heldout, [train[(i, 0)]["text"] for i in range(self.clips)])


if TYPE_CHECKING:
    Source: TypeAlias = SourceConfig
else:
    Source = Annotated[
        Union[(*plugins("sources").values(), ManifestSource, DatasetsSource, SyntheticSource)],  # noqa: UP007
        Field(discriminator="kind"),
    ]
"""the source of a recipe, by its `kind`; other packages may register further kinds"""


class Recordings(Dataset[Item]):
    """Clips of a manifest as waveforms, with one of their captions and one crop each time.

    With `cached`, the places of their frames, items hold these instead of waveforms.
    """

    def __init__(
        self,
        clips: list[Clip],
        seconds: float,
        sample_rate: int,
        seed: int,
        source: Path | str,
        crop: str = "random",
    ) -> None:
        """Raises DataError if a clip has no caption."""
        for clip in clips:
            if not clip.captions:
                raise DataError(
                    f"{source}: clip '{clip.id}' has no caption; training needs at least one"
                )
        self.clips, self.seconds, self.rate, self.seed = clips, seconds, sample_rate, seed
        self.crop = crop
        self.cached: list[Path] = []

    @cached_property
    def durations(self) -> np.ndarray:
        """Seconds of each recording, before any crop."""
        files = [clip.audio for clip in self.clips]
        quick = len(files) < _MANY
        return np.array([audio.duration(f) for f in tracked(files, "measuring", disable=quick)])

    @cached_property
    def references(self) -> list[list[str]]:
        """All captions of each clip, normalized."""
        return [[normalize(text) for text in clip.captions] for clip in self.clips]

    @property
    def lengths(self) -> np.ndarray:
        """Seconds of each item."""
        return np.minimum(self.durations, self.seconds)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, epoch = key
        clip = self.clips[index]
        rng = np.random.default_rng((self.seed, index, epoch))
        if self.cached:
            sound: Item = {"frames": np.array(read_frames(self.cached[index]))}
        else:
            sound = {"waveform": self._waveform(clip, rng)}
        text = clip.captions[int(rng.integers(len(clip.captions)))]
        return sound | {"text": normalize(text), "clip": index}

    def _waveform(self, clip: Clip, rng: np.random.Generator) -> np.ndarray:
        waveform = audio.load(clip.audio, self.rate)
        return cropped(waveform, self.seconds, self.rate, self.crop, rng)


class _Synthetic(Dataset[Item]):
    def __init__(self, source: SyntheticSource, first: int, count: int) -> None:
        self.clips = [
            synthetic_clip(first + index, source.seed, source.seconds) for index in range(count)
        ]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        clip = self.clips[key[0]]
        return {"waveform": clip.waveform, "text": clip.caption, "clip": key[0]}


def collate(items: list[Item]) -> dict[str, Any]:
    """Items as one batch: frames or waveforms, padded, with their lengths in samples or, where
    they differ, in frames.
    """
    batch: dict[str, Any] = {
        "texts": [item["text"] for item in items],
        "clip": torch.tensor([item["clip"] for item in items]),
    }
    if "frames" in items[0]:
        frames = [torch.from_numpy(item["frames"]) for item in items]
        counts = torch.tensor([len(rows) for rows in frames])
        batch["frames"] = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        return batch | ({} if bool((counts == counts[0]).all()) else {"frame_counts": counts})
    waveforms = [torch.from_numpy(item["waveform"]) for item in items]
    return batch | {
        "waveforms": torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        "lengths": torch.tensor([len(w) for w in waveforms]),
    }


def cached_frames(batch: dict[str, Any]) -> Frames:
    """The frames of a batch of `collate`, and which of them are not padding."""
    h = batch["frames"].float()
    counts = batch.get("frame_counts")
    if counts is None:
        return Frames(h, torch.ones(h.shape[:2], dtype=torch.bool, device=h.device))
    return Frames(h, torch.arange(h.shape[1], device=h.device)[None, :] < counts[:, None])


def _manifest(source: ManifestSource, opening: Opening) -> Splits:
    rate, seed = opening.sample_rate, opening.seed
    files = (source.train_files, (source.validation,))
    clips = [[clip for path in paths for clip in read_manifest(path)] for paths in files]
    train, validation = (
        Recordings(part, source.seconds, rate, seed, ", ".join(map(str, paths)), source.crop)
        for part, paths in zip(clips, files, strict=True)
    )
    if source.cache:
        if opening.frozen is None:
            raise ConfigError(
                "source.cache keeps the frames of a frozen encoder in stage 'lamb'; here the "
                "encoder is tuned, or the stage is another: leave it out"
            )
        _cache(source, (train, validation), opening.runs, opening.frozen)
    captions = [normalize(text) for clip in clips[0] for text in clip.captions]
    return Splits(train, validation, captions)


def _cache(
    source: ManifestSource, parts: tuple[Recordings, ...], runs: Path, frozen: FrameEncoder
) -> None:
    for part in parts if source.crop == "random" else ():
        for clip, seconds in zip(part.clips, part.durations, strict=True):
            if seconds > source.seconds:
                raise ConfigError(
                    f"source.cache: clip '{clip.id}' lasts {seconds:.1f} s and would be cropped "
                    f"at random to {source.seconds:g} s, differently each time; set "
                    "source.crop = 'start', a longer source.seconds, or no cache"
                )
    module: Any = frozen
    if torch.cuda.is_available():
        module.cuda()
    cache = FeatureCache(runs / "features", frozen, source.seconds)
    for part in parts:
        part.cached = cache.fill([clip.audio for clip in part.clips], frozen)
    module.cpu()
