"""Captions as plans: what is told, in which order and manner, and what is refused."""

from pathlib import Path

import pytest

from earwitness.data.captions import clip_ids, read_audiocaps, read_clotho, without
from earwitness.errors import ConfigError, DataError
from earwitness.text import normalize
from earwitness_lab.scenes.lexicon import Lexicon, PlannedEvent
from earwitness_lab.scenes.vocabulary import inflections, plural


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


def told(event: PlannedEvent) -> str:
    """The first candidate, its labels joined."""
    return "+".join(event.candidates[0])


def outline(lexicon: Lexicon, caption: str) -> list[list[str]] | None:
    plan = lexicon.parse(caption)
    return plan and [[told(event) for event in group] for group in plan.groups]


@pytest.mark.parametrize(
    ("caption", "groups"),
    [
        ("A man speaks, then a dog barks", [["man_speaking"], ["dog_barking"]]),
        ("A woman talks while rain falls", [["woman_speaking", "rain"]]),
        ("A man and a woman speak", [["man_speaking+woman_speaking"]]),
        ("A baby cries before a man laughs", [["baby_crying"], ["laughter:man"]]),
        ("A dog barks and growls", [["dog_barking", "dog_growling"]]),
        ("Speech by a man followed by applause", [["man_speaking"], ["applause"]]),
        ("A barking dog", [["dog_barking"]]),
        ("A toilet is flushed", [["toilet_flush"]]),
        ("Someone knocks on a door", [["door_knock"]]),
        ("A person opens a door", [["door_open_close"]]),
        ("Children are playing", [["children_playing"]]),
        ("A child speaks", [["child_speaking"]]),
        ("The engine of a bus is idling", [["bus"]]),
        ("Silence followed by snoring", [[], ["snoring"]]),
        ("White noise followed by male speech and splashing water",
         [["static_noise"], ["man_speaking", "water_splash"]]),
        ("A train horn blows as a train passes by", [["train_horn", "train"]]),
        ("A man walks", [["footsteps"]]),
        ("A horse is trotting", [["horse_galloping"]]),
    ],
)  # fmt: skip
def test_parse_tells_the_sounds_in_their_order(
    lexicon: Lexicon, caption: str, groups: list[list[str]]
) -> None:
    assert outline(lexicon, caption) == groups


@pytest.mark.parametrize(
    "caption",
    [
        "A sewing machine runs",
        "A man speaks in French",
        "A man barks",
        "A man",
        "A dog whimpers",
        "A person does something unusual",
        "Birds chirp and an accordion plays",
        "Wind blows fast and then slow",
        "A bird flaps its wings",
        "",
    ],
)
def test_parse_refuses_what_no_sound_tells(lexicon: Lexicon, caption: str) -> None:
    assert lexicon.parse(caption) is None
    assert lexicon.refusal(caption)


@pytest.mark.parametrize(
    ("caption", "field", "value"),
    [
        ("A dog barks in the distance", "far", True),
        ("A dog barks nearby", "far", False),
        ("A dog barks loudly", "loudness_db", 5.0),
        ("A dog barks softly", "loudness_db", -6.0),
        ("A dog barks three times", "count", 3),
        ("A dog barks twice", "count", 2),
        ("A dog barks repeatedly", "repetition", "repeat"),
        ("A dog barks continuously", "repetition", "continuous"),
        ("A dog barks briefly", "repetition", "brief"),
        ("A toilet flushes", "repetition", "once"),
        ("A car passes by", "movement", "pass"),
        ("A train approaches", "movement", "approach"),
        ("A siren fades away", "movement", "recede"),
        ("An engine revs", "movement", "rev"),
        ("Two men speak", "voices", 2),
        ("Three women speak", "voices", 3),
        ("A high pitched beep", "speed", 1.35),
    ],
)
def test_parse_tells_the_manner(lexicon: Lexicon, caption: str, field: str, value: object) -> None:
    plan = lexicon.parse(caption)
    assert plan is not None
    assert getattr(plan.events[0], field) == value


def test_background_holds_for_its_own_clause_only(lexicon: Lexicon) -> None:
    plan = lexicon.parse("A man speaks while birds chirp in the background")
    assert plan is not None
    assert [event.far for event in plan.events] == [False, True]


def test_told_by_keeps_only_candidates_with_sounds(lexicon: Lexicon) -> None:
    plan = lexicon.parse("People are talking")
    assert plan is not None
    only = plan.told_by({"man_speaking", "woman_speaking"}.__contains__)
    assert only is not None
    assert only.events[0].candidates == (("man_speaking", "woman_speaking"),)
    assert plan.told_by({"man_speaking"}.__contains__) is None


def test_inflections_follow_english_spelling() -> None:
    assert inflections("hum") == ("hum", "hums", "humming", "hummed")
    assert inflections("cry") == ("cry", "cries", "crying", "cried")
    assert inflections("hiss") == ("hiss", "hisses", "hissing", "hissed")
    assert inflections("idle") == ("idle", "idles", "idling", "idled")
    assert inflections("play") == ("play", "plays", "playing", "played")
    assert [plural(noun) for noun in ("dog", "bus", "puppy", "boy")] == [
        "dogs",
        "buses",
        "puppies",
        "boys",
    ]


def test_own_lexicon_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[connectives]\nsequence = ["then"]\nand = ["and"]\n[modifiers]\n'
        '[ignore]\nwords = ["a"]\n[actions.ring]\nverbs = ["ring"]\n'
        '[agents.gong]\nsingular = ["gong"]\ndoes = { ring = ["gong_sound"] }\n'
    )
    assert outline(Lexicon.load(path), "A gong rings") == [["gong_sound"]]


def test_lexicon_with_an_unknown_key_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[connectives]\n[modifiers]\n[actions]\n[agents.dog]\nsingulars = ['dog']\n")
    with pytest.raises(ConfigError, match="singulars"):
        Lexicon.load(path)


def test_every_named_action_and_agent_exists(lexicon: Lexicon) -> None:
    tables = lexicon.tables
    used = {name for agent in tables.agents.values() for name in agent.does}
    used |= {action.like for action in tables.actions.values() if action.like}
    assert used <= set(tables.actions)


def test_normalize_leaves_words_only() -> None:
    assert normalize("A man's  voice, LOUD;\nthen: caf\u00e9!") == "a mans voice loud then cafe"


def test_readers_keep_cells_with_newlines_whole(tmp_path: Path) -> None:
    path = tmp_path / "audiocaps.csv"
    path.write_text('audiocap_id,youtube_id,start_time,caption\n1,abc,0,"A dog\nbarks"\n')
    assert [(row.clip_id, row.caption) for row in read_audiocaps(path)] == [("abc", "A dog barks")]


def test_reader_names_the_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "clotho.csv"
    path.write_text("file_name,caption_1\nx.wav,rain\n")
    with pytest.raises(DataError, match="caption_2"):
        read_clotho(path)


def test_no_benchmark_caption_stays_in_the_training_text(shared_data: Path) -> None:
    benchmark = clip_ids(shared_data / "dev" / "captions.csv")
    captions = read_audiocaps(shared_data / "captions" / "audiocaps_val.csv")
    kept = without(captions, benchmark)
    assert not benchmark & {row.clip_id for row in kept}
    assert len(kept) < len(captions)


def test_labels_of_the_lexicon_are_those_of_the_sounds(lexicon: Lexicon, shared_data: Path) -> None:
    manifest = (shared_data / "train_audio" / "manifest.csv").read_text("utf-8").splitlines()
    labels = {line.split(",")[2] for line in manifest[1:]}
    assert lexicon.labels() <= labels


def test_most_human_captions_are_told(lexicon: Lexicon, shared_data: Path) -> None:
    captions = read_audiocaps(shared_data / "captions" / "audiocaps_val.csv")
    plans = [lexicon.parse(row.caption) for row in captions]
    assert sum(plan is not None for plan in plans) > 0.6 * len(plans)
