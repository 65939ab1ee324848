"""Clips of a Hugging Face dataset as a training source: from the hub or from a folder, on disk or
streamed.

Sound is decoded by `earwitness.audio`, as everywhere, never by `datasets`. No code of a dataset is
executed: `datasets` 4 and later only read plain files.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from torch.utils.data import Dataset

from earwitness import audio
from earwitness.errors import ConfigError, DataError, one_line
from earwitness.text import normalize
from earwitness.training.source import Item, Opening, SourceConfig, Splits, cropped

_SAMPLE = 10_000
"""streamed captions that a new tokenizer is made from"""
_PASS = 1_000_003
"""keeps the shuffles of a second pass over a short stream apart from those of later epochs"""


class DatasetsSource(SourceConfig):
    """A dataset on the hub, `owner/name`, or a folder of files that `datasets` reads."""

    kind: Literal["datasets"]
    dataset: str
    """owner/name on the hub, or a folder with parquet or audio files"""
    config: str | None = None
    """which configuration of it, if it has several"""
    revision: str | None = None
    """a commit, tag or branch on the hub"""
    train: str = "train"
    """a split; slices such as "train[:90%]" if it is not streamed"""
    validation: str = "validation"
    audio: str = "audio"
    """the column with the sound"""
    captions: str | tuple[str, ...] = "caption"
    """one or more columns, each a text or a list of texts"""
    seconds: PositiveFloat = 10.0
    crop: Literal["random", "start"] = "random"
    streaming: bool = False
    """reads clips as they come, with nothing kept on disk"""
    items_per_epoch: PositiveInt | None = None
    """streamed clips that count as an epoch; all unless given"""
    shuffle_buffer: PositiveInt = 1000
    """streamed clips among which the next one is drawn"""
    heldout_clips: int = Field(default=500, ge=1)
    """streamed validation clips, the first ones, which are kept in memory"""

    @property
    def caption_columns(self) -> tuple[str, ...]:
        """The columns with captions."""
        return (self.captions,) if isinstance(self.captions, str) else self.captions

    def open(self, opening: Opening) -> Splits:
        """Training clips in the order asked for, or in that of the stream; validation clips.

        Raises:
            DataError: the dataset, a split or a column is missing. MissingDependencyError:
                `datasets` is not installed.
        """
        train, validation = self._load(self.train), self._load(self.validation)
        if not self.streaming:
            rows = Rows(train, self, opening)
            texts = [text for group in rows.references for text in group]
            return Splits(rows, Rows(validation, self, opening), texts)
        held = list(validation.take(self.heldout_clips))
        sample = train.select_columns(list(self.caption_columns)).take(_SAMPLE)
        texts = [text for row in sample for text in texts_of(row, self)]
        return Splits(StreamedRows(train, self, opening), Rows(held, self, opening), texts)

    def _load(self, split: str) -> Any:
        try:
            import datasets
        except ImportError:
            from earwitness.errors import MissingDependencyError, pip_install

            raise MissingDependencyError(
                f"source.kind = 'datasets' needs the package datasets: {pip_install('hub')}"
            ) from None
        from datasets.exceptions import DatasetsError

        try:
            found = datasets.load_dataset(
                self.dataset,
                self.config,
                split=split,
                revision=self.revision,
                streaming=self.streaming,
            )
        except (OSError, ValueError, DatasetsError) as error:
            reason = one_line(error)[:200]
            raise DataError(f"source.dataset '{self.dataset}', split '{split}': {reason}") from None
        columns = found.column_names or []
        for name in (self.audio, *self.caption_columns):
            if name not in columns:
                raise DataError(
                    f"source.dataset '{self.dataset}', split '{split}': no column '{name}'; it has "
                    f"{', '.join(columns)}"
                )
        features = found.features or {}
        if isinstance(features.get(self.audio), datasets.Audio):
            found = found.cast_column(self.audio, datasets.Audio(decode=False))
        return found.select_columns([self.audio, *self.caption_columns])


class Rows(Dataset[Item]):
    """Clips by their number."""

    def __init__(self, rows: Any, source: DatasetsSource, opening: Opening) -> None:
        self.rows, self.source = rows, source
        self.rate, self.seed = opening.sample_rate, opening.seed

    @cached_property
    def references(self) -> list[list[str]]:
        """All captions of each clip, normalized. Raises DataError if a clip has none."""
        columns = list(self.source.caption_columns)
        only = self.rows if isinstance(self.rows, list) else self.rows.select_columns(columns)
        return [texts_of(row, self.source, number) for number, row in enumerate(only)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, epoch = key
        rng = np.random.default_rng((self.seed, index, epoch))
        return item(self.rows[index], index, self.source, self.rate, rng)


class StreamedRows(Dataset[Item]):
    """Clips in the order of a shuffled stream, a different one each epoch; (index, epoch) is a
    place in it. A place before the last one restarts the stream of that epoch, so that a resumed
    run and a worker process get the same clips.
    """

    ordered = True
    """the training loop must ask for the places of an epoch in their order"""

    def __init__(self, stream: Any, source: DatasetsSource, opening: Opening) -> None:
        self.source, self.rate, self.seed = source, opening.sample_rate, opening.seed
        self.stream = stream.shuffle(seed=opening.seed, buffer_size=source.shuffle_buffer)
        self.size = source.items_per_epoch or self._size(stream)
        self._at: tuple[int, int] = (0, -1)
        """epoch, and the last place that was read"""
        self._rows: Iterator[Any] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, epoch = key
        if self._rows is None or epoch != self._at[0] or index <= self._at[1]:
            self._rows, self._at = self._passes(epoch), (epoch, -1)
        for _ in range(index - self._at[1] - 1):
            next(self._rows)
        self._at = (epoch, index)
        rng = np.random.default_rng((self.seed, index, epoch))
        return item(next(self._rows), index, self.source, self.rate, rng)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: an open stream stays behind."""
        return {**self.__dict__, "_rows": None}

    def _passes(self, epoch: int) -> Iterator[Any]:
        for number in range(self.size):
            self.stream.set_epoch(epoch + _PASS * number)
            empty = True
            for row in self.stream:
                empty = False
                yield row
            if empty:
                raise DataError(f"source.dataset '{self.source.dataset}': the stream is empty")

    def _size(self, stream: Any) -> int:
        splits = stream.info.splits or {}
        if self.source.train in splits and splits[self.source.train].num_examples:
            return int(splits[self.source.train].num_examples)
        raise ConfigError(
            f"source.items_per_epoch: the dataset '{self.source.dataset}' does not say how many "
            "clips it streams; set how many count as an epoch"
        )


def item(
    row: dict[str, Any], index: int, source: DatasetsSource, rate: int, rng: np.random.Generator
) -> Item:
    """A row as an item: one of its captions and one crop of its sound."""
    texts = texts_of(row, source, index)
    waveform = audio.load(_sound(row[source.audio], index, source), rate)
    waveform = cropped(waveform, source.seconds, rate, source.crop, rng)
    return {"waveform": waveform, "text": texts[int(rng.integers(len(texts)))], "clip": index}


def texts_of(row: dict[str, Any], source: DatasetsSource, index: int | None = None) -> list[str]:
    """The captions of a row, normalized. Raises DataError if it has none."""
    found: list[str] = []
    for column in source.caption_columns:
        value = row[column]
        listed = value if isinstance(value, list) else [value]
        found += [normalize(text) for text in listed if isinstance(text, str) and text.strip()]
    if not found:
        where = "a clip" if index is None else f"clip {index}"
        raise DataError(
            f"source.dataset '{source.dataset}': {where} has no caption; training needs at least "
            "one"
        )
    return found


def _sound(value: Any, index: int, source: DatasetsSource) -> Any:
    """What `audio.load` reads: the bytes of a file, or its path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, str)) and value:
        return value
    raise DataError(
        f"source.dataset '{source.dataset}': clip {index} holds no sound in column "
        f"'{source.audio}'; expected an audio file, its bytes or its path"
    )
