"""Keeps training, validation and test apart: a leakage check, and random splits."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from earwitness.data.prepare.entries import Entry
from earwitness.errors import ConfigError, DataError

_NAMED = 3


def check_apart(entries: Sequence[Entry]) -> None:
    """Raises DataError if recordings are on more than one side of the split."""
    sides: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        sides[entry.recording].setdefault(entry.split, entry)
    shared = {recording: found for recording, found in sides.items() if len(found) > 1}
    if not shared:
        return
    shown = "; ".join(
        f"{recording} in "
        + " and ".join(f"{split} ('{entry.id}')" for split, entry in found.items())
        for recording, found in list(shared.items())[:_NAMED]
    )
    more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
    raise DataError(
        f"{len(shared)} recording(s) on more than one side of the split: {shown}{more}; exclude "
        "them from training with --exclude and the file of the other split"
    )


def random_split(entries: Sequence[Entry], share: float, seed: int) -> list[Entry]:
    """The entries with about `share` of them in validation; a recording is never split.

    Recordings are taken in the order of a hash of seed and name until the share is reached, so
    that adding clips moves few of them.

    Raises:
        ConfigError: `share` is outside 0 to 1.
        DataError: the entries are already split, or come from a single recording.
    """
    if not 0 < share < 1:
        raise ConfigError(f"--random-split {share}: expected a share between 0 and 1, such as 0.1")
    splits = sorted({entry.split for entry in entries})
    if len(splits) > 1:
        raise DataError(
            f"--random-split {share}: the clips are already split ({', '.join(splits)}); "
            "--split train ignores their splits"
        )
    sizes: dict[str, int] = defaultdict(int)
    for entry in entries:
        sizes[entry.recording] += 1
    if len(sizes) < 2:
        raise DataError(
            f"--random-split {share}: all clips come from one recording "
            f"({', '.join(sizes) or 'none'}); a split needs two"
        )
    budget = max(1.0, share * len(entries))
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: set[str] = set()
    taken = 0
    for recording in order[:-1]:
        # A recording is taken if it brings the total closer to the share.
        if abs(taken + sizes[recording] - budget) <= abs(taken - budget):
            chosen.add(recording)
            taken += sizes[recording]
    if not chosen:
        chosen = {min(order, key=lambda name: sizes[name])}
    return [
        replace(entry, split="validation" if entry.recording in chosen else "train")
        for entry in entries
    ]
