"""The tables of a lexicon, and the entries (with inflected forms) that captions are split into."""

import re
from collections import defaultdict
from dataclasses import dataclass, field

from pydantic import model_validator

from earwitness.config import Strict
from earwitness.text import normalize


class Agent(Strict):
    """What sounds: its nouns, its own sound, its sound for each action (none: cannot be mixed)."""

    singular: tuple[str, ...] = ()
    plural: tuple[str, ...] = ()
    default: tuple[str, ...] = ()
    does: dict[str, tuple[str, ...]] = {}
    voices: bool = False
    person: bool = False


class Action(Strict):
    """What happens: its words, its sound without a known agent, its movement.

    A person (agent with `person`) makes the sound of a `human` action that it has no own one for.
    An agent without an own sound for this action takes the one for the action `like`.
    """

    verbs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    default: tuple[str, ...] = ()
    moves: str = ""
    like: str = ""
    human: bool = False


class Behavior(Strict):
    """Sounds that are heard once by themselves, and the meaning of loud, fast and their like."""

    once: tuple[str, ...] = ()
    loud_db: float = 5.0
    quiet_db: float = -6.0
    speeds: dict[str, float] = {}


class LexiconTables(Strict):
    """The tables of a lexicon file."""

    connectives: dict[str, tuple[str, ...]]
    modifiers: dict[str, tuple[str, ...]]
    counts: dict[str, int] = {}
    numbers: dict[str, int] = {}
    ignore: dict[str, tuple[str, ...]] = {}
    actions: dict[str, Action]
    agents: dict[str, Agent]
    phrases: dict[str, tuple[tuple[str, ...], ...]] = {}
    behavior: Behavior = Behavior()

    @model_validator(mode="after")
    def _names_known_actions(self) -> "LexiconTables":
        for name, agent in self.agents.items():
            for action in agent.does:
                if action not in self.actions:
                    raise ValueError(f"agent '{name}' does '{action}', which is not an action")
        for name, action in self.actions.items():
            if action.like and action.like not in self.actions:
                raise ValueError(f"action '{name}' is like '{action.like}', which is not an action")
        return self


@dataclass
class Meaning:
    """Everything that one entry of the lexicon can mean."""

    agents: list[tuple[str, bool]] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    nouns: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    number: int | None = None
    count: int = 0
    phrase: tuple[tuple[str, ...], ...] | None = None


def entries_of(tables: LexiconTables) -> dict[str, Meaning]:
    """Every entry of `tables`, normalized, with its inflected forms and all that it means."""
    entries: defaultdict[str, Meaning] = defaultdict(Meaning, {",": Meaning(tags={"and"})})
    for lists in (tables.connectives, tables.modifiers, tables.ignore):
        for tag, texts in lists.items():
            for text in texts:
                entries[normalize(text)].tags.add(tag)
    for text, number in tables.numbers.items():
        entries[normalize(text)].number = number
    for text, count in tables.counts.items():
        entries[normalize(text)].count = count
    for text, events in tables.phrases.items():
        entries[normalize(text)].phrase = events
    _enter_sounds(entries, tables)
    return dict(entries)


def _enter_sounds(entries: defaultdict[str, Meaning], tables: LexiconTables) -> None:
    for name, action in tables.actions.items():
        verbs = [form for verb in action.verbs for form in inflections(verb)]
        for text in [*verbs, *action.words]:
            entries[normalize(text)].verbs.append(name)
        for text in action.nouns:
            entries[normalize(text)].nouns.append(name)
    for name, agent in tables.agents.items():
        for text in agent.singular:
            entries[normalize(text)].agents.append((name, False))
        for text in [*map(plural, agent.singular), *agent.plural]:
            entries[normalize(text)].agents.append((name, True))


def plural(noun: str) -> str:
    """The regular English plural of `noun` (its last word)."""
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"


def inflections(verb: str) -> tuple[str, str, str, str]:
    """`verb`, its third person, its -ing and its -ed form, by the regular rules of English
    spelling.
    """
    stem = verb
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", verb):
        stem = verb + verb[-1]
    elif re.search(r"[^aeiouy]e$|ue$", verb):
        stem = verb[:-1]
    past = re.sub(r"(?<=[^aeiou])y$", "i", stem) + "ed"
    return verb, plural(verb), stem + "ing", past
