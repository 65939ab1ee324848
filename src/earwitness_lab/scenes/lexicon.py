"""Captions read as plans: which sounds, in which order, how loud, how far, how often, moving where.

The words live in a TOML file (lexicon.toml; its head explains the lists), the grammar here. A
caption is read from left to right, the longest entry of any list first; a word that no list knows,
or a doer and a deed that the lexicon does not bring together, makes the whole caption unusable.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from earwitness.config import read_toml, tomllib, validate
from earwitness.text import normalize
from earwitness_lab.scenes.reader import Draft, Reader, Untellable
from earwitness_lab.scenes.tracks import Repetition
from earwitness_lab.scenes.vocabulary import LexiconTables, entries_of

_MAX_WORDS = 7
_MAX_EVENTS = 7


@dataclass(frozen=True)
class PlannedEvent:
    """One sound of a plan.

    Any of `candidates` matches it: each a tuple of labels (or "label:word") that sound together.
    `voices` different recordings of it are heard; `count` above 0 is an exact number of times;
    `speed` other than 1 makes it faster and higher, or slower and lower.
    """

    candidates: tuple[tuple[str, ...], ...]
    far: bool = False
    loudness_db: float = 0.0
    repetition: Repetition = "natural"
    count: int = 0
    movement: str = ""
    voices: int = 1
    speed: float = 1.0


@dataclass(frozen=True)
class Plan:
    """The sounds of a caption: groups one after the other, the events of a group together."""

    groups: tuple[tuple[PlannedEvent, ...], ...]

    @property
    def events(self) -> tuple[PlannedEvent, ...]:
        """All events, in order."""
        return tuple(event for group in self.groups for event in group)

    def told_by(self, has: Callable[[str], bool]) -> "Plan | None":
        """The plan with only the candidates whose every label `has` a sound; None if none is
        left.
        """
        groups = []
        for group in self.groups:
            events = []
            for event in group:
                known = tuple(labels for labels in event.candidates if all(map(has, labels)))
                if not known:
                    return None
                events.append(replace(event, candidates=known))
            groups.append(tuple(events))
        return Plan(tuple(groups))


class Lexicon:
    """Reads captions as plans. Build it from tables, or `load` it from a file."""

    def __init__(self, tables: LexiconTables) -> None:
        self.tables = tables
        self.entries = entries_of(tables)

    @classmethod
    def load(cls, path: Path | str | None = None) -> "Lexicon":
        """The lexicon of the TOML file at `path`, or the one that comes with the package.

        Raises:
            ConfigError: the file is missing, is not TOML, or has unknown or missing keys.
        """
        if path is None:
            file = resources.files("earwitness_lab.scenes").joinpath("lexicon.toml")
            tables: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
            return cls(validate(LexiconTables, tables, "lexicon.toml"))
        return cls(validate(LexiconTables, read_toml(Path(path)), str(path)))

    def parse(self, caption: str) -> Plan | None:
        """The plan of `caption`; None if some of it has no sound or is not understood."""
        try:
            return self._read(caption)
        except Untellable:
            return None

    def refusal(self, caption: str) -> str | None:
        """Why `caption` has no plan, in a few words; None if it has one."""
        try:
            self._read(caption)
        except Untellable as reason:
            return str(reason)
        return None

    def _read(self, caption: str) -> Plan:
        entries = self._split(caption)
        groups = Reader(self.tables, [(text, self.entries[text]) for text in entries]).read()
        if sum(map(len, groups)) > _MAX_EVENTS:
            raise Untellable(f"it names more than {_MAX_EVENTS} sounds")
        return Plan(tuple(tuple(self._event(draft) for draft in group) for group in groups))

    def labels(self) -> frozenset[str]:
        """Every label that some entry of the lexicon names, without description words."""
        lists = [agent.default for agent in self.tables.agents.values()]
        lists += [labels for agent in self.tables.agents.values() for labels in agent.does.values()]
        lists += [action.default for action in self.tables.actions.values()]
        lists += [labels for events in self.tables.phrases.values() for labels in events]
        parts = [part for labels in lists for candidate in labels for part in candidate.split("+")]
        return frozenset(part.partition(":")[0] for part in parts)

    def _split(self, caption: str) -> list[str]:
        clauses = [normalize(clause) for clause in re.split(r"[,;.:]", caption)]
        words = " , ".join(clause for clause in clauses if clause).split()
        entries, at = [], 0
        while at < len(words):
            for size in range(min(_MAX_WORDS, len(words) - at), 0, -1):
                entry = " ".join(words[at : at + size])
                if entry in self.entries:
                    entries.append(entry)
                    at += size
                    break
            else:
                raise Untellable(f"'{words[at]}' is in no list")
        return entries

    def _event(self, draft: Draft) -> PlannedEvent:
        behavior = self.tables.behavior
        level = behavior.loud_db * ("loud" in draft.marks) + behavior.quiet_db * (
            "quiet" in draft.marks
        )
        candidates = tuple(tuple(candidate.split("+")) for candidate in draft.labels)
        ends = all(part.partition(":")[0] in behavior.once for part in candidates[0])
        repetition: Repetition = "once" if ends and not draft.plural else "natural"
        kinds: tuple[Repetition, ...] = ("once", "brief", "repeat", "continuous")
        for kind in kinds:
            repetition = kind if kind in draft.marks else repetition
        return PlannedEvent(
            candidates=candidates,
            far="far" in draft.marks and "near" not in draft.marks,
            loudness_db=level,
            repetition=repetition,
            count=draft.count,
            movement=draft.movement,
            voices=draft.voices,
            speed=math.prod((behavior.speeds.get(mark, 1.0) for mark in draft.marks), start=1.0),
        )
