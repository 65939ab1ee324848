"""Which reports are passed on: sounds by name, and none twice within a cool-down."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from earwitness.caption import CaptionCalls
from earwitness.captioning.captioner import Captioner
from earwitness.errors import ConfigError
from earwitness.live.records import Report
from earwitness.models.sound_classes import SoundClassifier
from earwitness.text import gist


@dataclass(frozen=True)
class Wanted:
    """A requested sound, and AudioSet's names of the classes that it matches."""

    phrase: str
    names: tuple[str, ...]

    def matches(self, report: Report) -> bool:
        """Whether the report is of that sound: its class, or a caption with all the words."""
        if report.kind == "caption":
            return set(gist(self.phrase)) <= set(gist(report.text))
        return report.text in self.names


def class_head(captioner: Captioner) -> SoundClassifier | None:
    """The class head of a captioner; None for one that has none."""
    return captioner.classes if isinstance(captioner, CaptionCalls) else None


def wanted_sounds(phrases: str | None, classes: SoundClassifier | None) -> list[Wanted]:
    """The sounds that `phrases`, separated by commas, ask for.

    A phrase matches the classes whose names or labels contain all its words, apart from word
    endings; if there is none, the more general ones, all of whose words it contains ("smoke alarm":
    Alarm).

    Raises:
        ConfigError: a phrase matches no class.
    """
    if phrases is None:
        return []
    asked = [phrase.strip() for phrase in phrases.split(",") if phrase.strip()]
    if not asked:
        raise ConfigError(f"got {phrases!r}; expected names of sounds, separated by commas")
    if classes is None:
        return [Wanted(phrase, ()) for phrase in asked]
    pairs = list(zip(classes.config.labels, classes.config.names, strict=True))
    return [Wanted(phrase, _names(phrase, pairs)) for phrase in asked]


def _names(phrase: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    words = set(gist(phrase))
    said = [(name, [set(gist(part)) for part in _parts(label, name)]) for label, name in pairs]
    found = [name for name, parts in said if any(words <= part for part in parts)]
    if not found:
        found = [name for name, parts in said if any(part and part <= words for part in parts)]
    if not words or not found:
        known = sorted({name for _, name in pairs})
        near = difflib.get_close_matches(phrase, known, n=3, cutoff=0.4) or known[:3]
        raise ConfigError(
            f"the model knows no sound {phrase!r}; expected one such as "
            f"{', '.join(repr(name) for name in near)}"
        )
    return tuple(dict.fromkeys(found))


def _parts(label: str, name: str) -> Iterable[str]:
    yield label.replace("_", " ")
    yield from name.split(",")


@dataclass
class Filter:
    """Passes reports of the sounds in `wanted` (all sounds if it is empty), and none of the same
    class, or with the same caption, within `cool_down` seconds. An event's end passes if its
    start did.
    """

    wanted: Sequence[Wanted] = ()
    cool_down: float = 0.0
    _passed: dict[str, float] = field(default_factory=dict[str, float])
    _begun: set[str] = field(default_factory=set[str])

    def passes(self, report: Report) -> bool:
        """Whether the report passes; called once per report, in order."""
        if report.kind == "end":
            begun = report.label in self._begun
            self._begun.discard(report.label)
            return begun
        if self.wanted and not any(one.matches(report) for one in self.wanted):
            return False
        key, now = f"{report.label}|{' '.join(gist(report.text))}", report.start
        self._passed = {k: at for k, at in self._passed.items() if now - at < self.cool_down}
        if key in self._passed:
            return False
        self._passed[key] = now
        if report.kind == "start":
            self._begun.add(report.label)
        return True
