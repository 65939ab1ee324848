"""Frames of a frozen encoder, computed once and kept on disk: an epoch then reads no audio.

One memory-mapped half-precision file per clip, named by all that its frames depend on: the content
of the audio file, the encoder's kind, settings (front end included) and weights, and the crop.
Another encoder or a changed file therefore never reuses old frames. Files are written atomically,
so two runs may fill one cache at once.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor, nn

from earwitness import audio
from earwitness.data.prepare.packed import PackedFile
from earwitness.encoders.base import FrameEncoder
from earwitness.errors import DataError
from earwitness.io.atomic import replacing, write_text
from earwitness.io.digests import sha256_of
from earwitness.training.progress import tracked

SoundFile = Path | PackedFile
"""a file, or its place in a shard"""

_BLOCK = 1 << 20
"""bytes hashed at once"""


class FeatureCache:
    """The frames of one encoder for clips cut to their first `seconds`."""

    def __init__(self, folder: Path, encoder: FrameEncoder, seconds: float) -> None:
        self.seconds = seconds
        self.known = folder / "files.json"
        self.folder = folder / _code(encoder, seconds)[:16]

    def fill(
        self, files: Sequence[SoundFile], encoder: FrameEncoder, batch_size: int = 32
    ) -> list[Path]:
        """Where the frames of each of `files` are; those that are missing are made first.

        Raises:
            AudioError: a file cannot be read. DataError: the encoder gives no finite numbers.
        """
        places = [self._place(code) for code in self._contents(files)]
        missing = {p: f for p, f in zip(places, files, strict=True) if not p.is_file()}
        listed = list(missing.items())
        starts = range(0, len(listed), batch_size)
        for start in tracked(starts, "caching frames", disable=not listed):
            self._make(listed[start : start + batch_size], encoder)
        return places

    def _place(self, content: str) -> Path:
        return self.folder / content[:2] / f"{content}.npy"

    @torch.no_grad()
    def _make(self, clips: list[tuple[Path, SoundFile]], encoder: FrameEncoder) -> None:
        rate = encoder.sample_rate
        most = round(self.seconds * rate)
        sounds = [torch.from_numpy(audio.load(file, rate)[:most].copy()) for _, file in clips]
        lengths = torch.tensor([len(sound) for sound in sounds])
        padded = nn.utils.rnn.pad_sequence(sounds, batch_first=True)
        device = next(iter(_state(encoder).values())).device
        h, mask = encoder(padded.to(device), lengths.to(device))
        for (place, file), row, real in zip(clips, h, mask, strict=True):
            frames = row[real].half().cpu().numpy()
            if not np.isfinite(frames).all():
                raise DataError(f"{file}: the encoder's frames leave the range of half precision")
            with replacing(place, DataError, durable=False) as whole:
                np.save(whole, frames, allow_pickle=False)

    def _contents(self, files: Iterable[SoundFile]) -> list[str]:
        """SHA-256 of each file; read again only where size or time of change say so."""
        known = self._read_known()
        codes, fresh = [], False
        for file in files:
            try:
                state = file.stat()
            except OSError as error:
                raise DataError(f"{file}: {error.strerror}; a recording was expected") from None
            entry = known.get(str(file.resolve()))
            if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
                entry = [state.st_size, state.st_mtime_ns, sha256_of(file)]
                known[str(file.resolve())] = entry
                fresh = True
            codes.append(entry[2])
        if fresh:
            # What another run adds at the same moment is lost, and merely hashed again.
            write_text(self.known, json.dumps(known), DataError)
        return codes

    def _read_known(self) -> dict[str, list[Any]]:
        try:
            return json.loads(self.known.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}


def read_frames(place: Path) -> Float16[np.ndarray, "N D"]:
    """The frames stored at `place`, memory-mapped.

    Raises:
        DataError: they are gone or damaged.
    """
    try:
        return np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{place}: cached frames are missing or damaged ({error}); delete the file and start "
            "again"
        ) from None


def _code(encoder: FrameEncoder, seconds: float) -> str:
    settings = getattr(encoder, "config", None)
    identity = [type(encoder).__name__, settings.model_dump_json() if settings else "", seconds]
    code = hashlib.sha256(json.dumps(identity).encode())
    for name, value in sorted(_state(encoder).items()):
        code.update(name.encode())
        code.update(_bytes(value))
    return code.hexdigest()


def _state(encoder: Any) -> dict[str, Tensor]:
    return encoder.state_dict()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
