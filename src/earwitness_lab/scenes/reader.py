"""The grammar of captions: doers, deeds and connectives become drafts of sound events.

One pass over the entries of a caption. A clause ends at a connective; its modifiers hold for its
own events, or where it has none for those of the clause before. A doer waits for its deed; across
"and" both are shared ("a man and a woman speak", "a dog barks and growls").
"""

from dataclasses import dataclass, field

from earwitness_lab.scenes.vocabulary import Agent, LexiconTables, Meaning

_MARKS = frozenset(
    ("far", "near", "quiet", "loud", "repeat", "continuous", "brief", "once")
    + ("fast", "slow", "high", "low")
)
_PATHS = frozenset({"approach", "pass", "recede"})
_SILENT = frozenset({"words", "places", "neutral"})


@dataclass
class Draft:
    """An event in the making: candidate labels and what was said about it."""

    labels: tuple[str, ...]
    voices: int = 1
    plural: bool = False
    count: int = 0
    movement: str = ""
    noun: str = ""
    marks: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Doer:
    """A noun waiting for its verb: the agents it may be, and how many."""

    names: tuple[str, ...]
    plural: bool
    number: int | None


@dataclass(frozen=True)
class Adjacent:
    """The sound of the entry just read, which a noun right after it may claim ("a barking dog")."""

    draft: Draft
    actions: tuple[str, ...]


class Untellable(Exception):
    """Raised within a reading when a part of the caption has no sound; says which."""


class Reader:
    """The state of one reading."""

    def __init__(self, tables: LexiconTables, entries: list[tuple[str, Meaning]]) -> None:
        self._tables = tables
        self._entries = entries
        self._text = ""
        self._adjacent: Adjacent | None = None
        self._silences: set[int] = set()
        self._groups: list[list[Draft]] = [[]]
        self._clause: list[Draft] = []
        self._previous: list[Draft] = []
        self._marks: set[str] = set()
        self._carried: set[str] = set()
        self._count = 0
        self._waiting: list[Doer] = []
        self._subject: list[Doer] = []
        self._mentioned: list[Doer] = []
        self._held: list[tuple[str, ...]] = []
        self._number: int | None = None
        self._preposition = self._kept = ""

    def read(self) -> list[list[Draft]]:
        """The groups of drafts, in order; an empty group is a silence.

        Raises:
            Untellable: some of the caption has no sound.
        """
        for text, meaning in self._entries:
            self._text = text
            adjacent, self._adjacent = self._adjacent, None
            self._take(meaning, adjacent)
        self._end_clause()
        if not any(self._groups):
            raise Untellable("it names no sound")
        if any(not group and at not in self._silences for at, group in enumerate(self._groups)):
            raise Untellable("a part of it names no sound")
        return [
            group for number, group in enumerate(self._groups) if group or number in self._silences
        ]

    def _take(self, meaning: Meaning, adjacent: Adjacent | None) -> None:
        tags = meaning.tags
        if "silence" in tags:
            self._silence()
        elif meaning.phrase is not None:
            self._phrase(meaning.phrase)
        elif "sequence" in tags:
            self._end_clause()
            self._previous = []
            self._groups.append([])
        elif "and" in tags:
            self._end_clause(joined=True)
        elif self._sounds(meaning, adjacent):
            self._number, self._preposition, self._kept = None, self._kept, ""
        elif "parallel" in tags and not (tags & {"place", "by"} and self._held):
            self._end_clause()
        elif tags & {"by", "place"}:
            self._preposition = "by" if "by" in tags else "place"
        else:
            self._modify(meaning)

    def _sounds(self, meaning: Meaning, adjacent: Adjacent | None) -> bool:
        """Whether the entry was read as a doer or as a deed."""
        if meaning.agents:
            return self._agent(meaning, adjacent)
        return bool(meaning.verbs or meaning.nouns) and self._action(meaning)

    def _modify(self, meaning: Meaning) -> None:
        tags = meaning.tags
        if tags & _MARKS:
            self._marks |= tags & _MARKS
        elif meaning.count:
            self._set_count(meaning.count)
        elif meaning.number is not None:
            self._number = meaning.number
        elif tags & _SILENT:
            self._silent(meaning)
        else:
            raise Untellable(f"'{self._text}' cannot be used there")

    def _silence(self) -> None:
        """A stretch without sound: a group of its own, or the end of a sound named just now."""
        self._silences.add(len(self._groups) - 1)
        self._subject, self._waiting = self._waiting or self._subject, []

    def _phrase(self, events: tuple[tuple[str, ...], ...]) -> None:
        if not events:
            raise Untellable(f"'{self._text}' has no sound")
        self._silence_persons()
        for labels in events:
            self._add(Draft(labels, plural=True))

    def _set_count(self, count: int) -> None:
        if self._clause:
            self._clause[-1].count = count
        else:
            self._count = count

    def _silent(self, meaning: Meaning) -> None:
        if "neutral" in meaning.tags:
            self._settle(final=False)
        somewhere = self._preposition or self._held or self._waiting or self._clause
        if "places" in meaning.tags and "words" not in meaning.tags and not somewhere:
            raise Untellable(f"'{self._text}' alone has no sound")

    def _agent(self, meaning: Meaning, adjacent: Adjacent | None) -> bool:
        """Whether the noun was used: as the object of a deed, as a doer, or as a mere place."""
        names = tuple(name for name, _ in meaning.agents)
        doer = Doer(names, meaning.agents[0][1], self._number)
        if adjacent:
            refined = self._sound(doer, adjacent.actions)
            if refined and (adjacent.draft.noun or refined.labels == adjacent.draft.labels):
                refined.voices = max(refined.voices, adjacent.draft.voices)
                self._clause[-1] = refined
                self._subject = self._subject or [doer]
                return True
        if self._preposition == "by" and self._clause and self._clause[-1].noun:
            refined = self._sound(doer, (self._clause[-1].noun,))
            if refined:
                refined.marks = self._clause[-1].marks
                self._clause[-1] = refined
                self._subject = [doer]
                return True
        if self._held:
            draft = self._sound(doer, self._held[-1])
            if draft:
                self._held.pop()
                self._silence_persons()
                self._subject = self._subject or [doer]
                self._add(draft)
                return True
        if self._preposition and (self._clause or self._waiting or self._held):
            self._mentioned, self._kept = [doer], self._preposition
            if self._preposition == "by" and self._waiting and not self._clause:
                return self._qualify(doer)
            return True
        self._waiting.append(doer)
        return True

    def _silence_persons(self) -> None:
        """Who works a thing is not heard; any other waiting noun is."""
        persons = [doer for doer in self._waiting if self._agents(doer)[0].person]
        self._waiting = [doer for doer in self._waiting if doer not in persons]
        self._settle()
        self._subject = persons or self._subject

    def _qualify(self, doer: Doer) -> bool:
        """Takes the later noun ("the engine of a bus") where it has a sound of its own."""
        if self._agents(doer)[0].default:
            self._waiting[-1] = doer
        return True

    def _action(self, meaning: Meaning) -> bool:
        """Whether the verb or noun made a sound; unresolved ones may still meet their object."""
        names = (*meaning.verbs, *meaning.nouns)
        noun = bool(meaning.nouns)
        if self._waiting:
            return self._deed(self._waiting, names) or self._unattended(names, meaning)
        default = self._default(names)
        if noun and default and not (self._subject and meaning.verbs and self._follows()):
            self._add(
                Draft(default.labels, plural=self._number is not None, noun=default.noun), names
            )
            return True
        moves = any(self._tables.actions[name].moves in _PATHS for name in names)
        if moves and self._mentioned and self._deed(self._mentioned, names):
            return True
        if self._subject and self._deed(self._subject, names):
            return True
        if default:
            self._add(default, names)
            return True
        return self._move(names) or self._unattended(names, meaning)

    def _move(self, names: tuple[str, ...]) -> bool:
        """Whether `names` hold a movement for the sounds of this or the last clause."""
        moves = [action.moves for action in map(self._tables.actions.get, names) if action]
        for draft in self._clause or self._previous:
            draft.movement = next(filter(None, moves), draft.movement)
        return any(moves) and bool(self._clause or self._previous)

    def _follows(self) -> bool:
        """Whether the clause continues with the agent of the one before."""
        return not self._clause and bool(self._previous or self._groups[:-1])

    def _unattended(self, names: tuple[str, ...], meaning: Meaning) -> bool:
        if meaning.tags & (_MARKS | _SILENT | {"parallel", "place", "by"}) or meaning.count:
            return False
        self._held.append(names)
        return True

    def _deed(self, doers: list[Doer], names: tuple[str, ...]) -> bool:
        drafts = [self._sound(doer, names) for doer in doers]
        again = doers is self._subject
        if all(draft is None for draft in drafts):
            return False
        for doer, draft in zip(doers, drafts, strict=True):
            made = draft or self._own_sound(doer)
            if made is None:
                raise Untellable(f"'{doer.names[0]}' has no sound for '{self._text}'")
            known = [other for other in self._near() if other.labels == made.labels]
            if not (again and known):
                self._add(made, names)
            for other in known if again else ():
                other.movement = made.movement or other.movement
        self._subject, self._waiting = doers, []
        return True

    def _near(self) -> list[Draft]:
        """The events of this group so far: the same doer's second verb for one sound adds none."""
        return [*self._groups[-1], *self._clause]

    def _agents(self, doer: Doer) -> list[Agent]:
        return [self._tables.agents[name] for name in doer.names]

    def _sound(self, doer: Doer, names: tuple[str, ...]) -> Draft | None:
        """The sound of `doer` in one of the actions `names`; None if the lexicon has none."""
        for agent in self._agents(doer):
            for name in names:
                action = self._tables.actions[name]
                labels = agent.does.get(name, agent.does.get(action.like))
                noun = ""
                if labels is None and action.moves in _PATHS:
                    labels = agent.default
                if labels is None and agent.person and action.human:
                    labels, noun = action.default, name
                if labels:
                    voices = 1 if noun else self._voices(doer)
                    return Draft(labels, voices, doer.plural, movement=action.moves, noun=noun)
        return None

    def _own_sound(self, doer: Doer) -> Draft | None:
        for agent in self._agents(doer):
            if agent.default:
                return Draft(agent.default, self._voices(doer), doer.plural)
        return None

    def _voices(self, doer: Doer) -> int:
        if not self._agents(doer)[0].voices or not (doer.plural or doer.number):
            return 1
        return min(doer.number or 2, 3)

    def _default(self, names: tuple[str, ...]) -> Draft | None:
        for name in names:
            action = self._tables.actions[name]
            if action.default:
                return Draft(action.default, noun=name, movement=action.moves)
        return None

    def _add(self, draft: Draft, actions: tuple[str, ...] = ()) -> None:
        if draft.noun and any(draft.labels == other.labels for other in self._near()):
            return
        self._clause.append(draft)
        self._adjacent = Adjacent(draft, actions) if actions else None

    def _settle(self, final: bool = True) -> None:
        """Gives waiting doers their own sound; at the end of a clause none may be left without."""
        left = []
        for doer in self._waiting:
            draft = self._own_sound(doer)
            if draft:
                self._add(draft)
                self._subject = [doer]
            else:
                left.append(doer)
        self._waiting = left
        if final and self._held:
            who = "/".join(doer.names[0] for doer in left or self._subject) or "nobody"
            raise Untellable(f"'{who}' has no sound for '{'/'.join(self._held[-1])}'")
        if final and left:
            raise Untellable(f"'{left[-1].names[0]}' alone has no sound")

    def _end_clause(self, joined: bool = False) -> None:
        if joined and self._waiting and not self._clause:
            return
        self._settle(final=True)
        marks = self._marks | self._carried
        target = self._clause or self._previous
        for draft in target:
            draft.marks |= marks
            draft.count = draft.count or self._count
        if target:
            self._carried, self._count = set(), 0
        else:
            self._carried = marks
        self._groups[-1].extend(self._clause)
        self._previous = self._clause or self._previous
        self._clause, self._marks, self._mentioned = [], set(), []
        self._preposition, self._number = "", None
