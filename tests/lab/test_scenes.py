"""Sound banks and scenes, on a small folder of synthetic labeled sounds."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.data.captions import read_audiocaps
from earwitness.errors import DataError
from earwitness_lab.scenes import effects
from earwitness_lab.scenes.decoding import frame_levels_db
from earwitness_lab.scenes.lexicon import Lexicon, Plan, PlannedEvent
from earwitness_lab.scenes.listening_sheet import write_listening_sheet
from earwitness_lab.scenes.mixing import Placed, SceneSet, compose, random_scene, render
from earwitness_lab.scenes.recordings import heldout_recordings, read_manifest, recording_of
from earwitness_lab.scenes.soundbank import SoundBank
from earwitness_lab.scenes.tracks import Manner, burst, lay

RATE = 16000
TONES = {"dog_barking": 400.0, "man_speaking": 900.0, "rain": 600.0, "train_horn": 1500.0}


def tone(hertz: float, seconds: float, pulse: float = 0.0) -> np.ndarray:
    """A sine, silent but for its first 0.2 s in every `pulse` seconds where `pulse` is given."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.5 * np.sin(2 * np.pi * hertz * time)
    return (sound * (time % pulse < 0.2) if pulse else sound).astype(np.float32)


def write_sounds(folder: Path, recordings: int = 6, clips: int = 2) -> Path:
    """A labeled folder: steady rain and horn, short barks, pulsing speech."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "origin", "kind", "description"])
        for label, hertz in TONES.items():
            for number in range(recordings):
                for clip in range(clips):
                    name = f"{label}_{number}_{clip}.wav"
                    seconds = 0.3 if label == "dog_barking" else 4.0
                    pulse = 1.0 if label == "man_speaking" else 0.0
                    soundfile.write(folder / name, tone(hertz, seconds, pulse), RATE)
                    origin = f"some/where@1a2b:fold1/{1000 + number}{len(label)}-3-0-{clip}.wav"
                    kind = "NC-ND" if number == 0 else "free"
                    mood = "in an angry voice" if number == 1 else "calmly"
                    writer.writerow([name, label, origin, kind, mood])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def bank(folder: Path) -> SoundBank:
    return SoundBank.load(folder, split="all")


def power(waveform: np.ndarray, hertz: float) -> float:
    """The power within 10 % of `hertz`."""
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(spectrum[np.abs(frequencies - hertz) < 0.1 * hertz].sum())


def plan_of(*groups: list[str], **manner: object) -> Plan:
    return Plan(
        tuple(
            tuple(PlannedEvent(candidates=((label,),), **manner) for label in group)  # type: ignore[arg-type]
            for group in groups
        )
    )


def test_bank_leaves_out_the_excluded_kinds(folder: Path) -> None:
    assert len(SoundBank.load(folder, split="all")) == 4 * 5 * 2
    assert len(SoundBank.load(folder, split="all", exclude_kinds=())) == 4 * 6 * 2


def test_split_never_shares_a_recording(folder: Path) -> None:
    train, heldout = (
        SoundBank.load(folder, split=side, heldout_share=0.2) for side in ("train", "heldout")
    )
    assert {clip.recording for clip in train}.isdisjoint(clip.recording for clip in heldout)
    assert len(train) + len(heldout) == len(SoundBank.load(folder, split="all"))
    assert set(train.labels) == set(TONES)


def test_label_with_few_recordings_keeps_them_for_training() -> None:
    rows = [{"path": f"{n}.wav", "label": "rare", "recording": str(n)} for n in range(3)]
    rows += [{"path": f"c{n}.wav", "label": "common", "recording": f"c{n}"} for n in range(20)]
    heldout = heldout_recordings(rows, 0.2)
    assert len(heldout) == 4
    assert all(name.startswith("c") for name in heldout)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a/b@1:audio/fold2/102871-8-0-10.wav", "a/b@1:audio/fold2/102871-8-0-12.wav", True),
        ("a/b@1:audio/fold2/102871-8-0-10.wav", "c/d@2:410 - Glass/1-102871-A.ogg", True),
        ("a/b@1:audio/4-85839-A-5.wav", "a/b@1:audio/4-85840-A-5.wav", False),
        ("a/b@1:data/margot.m4a_10.wav", "a/b@1:data/margot.m4a_2.wav", True),
        ("a/b@1:Actor_19/03-01-05.wav", "a/b@1:Actor_19/03-02-07.wav", True),
        ("a/b@1:Actor_19/03-01-05.wav", "a/b@1:Actor_20/03-01-05.wav", False),
        ("a/b@1:x/door.3.ogg", "a/b@1:x/door.4.ogg", True),
    ],
)
def test_recording_is_read_from_the_origin(first: str, second: str, same: bool) -> None:
    names = [recording_of({"path": "p", "origin": origin}) for origin in (first, second)]
    assert (names[0] == names[1]) is same


def test_cache_gives_the_same_samples_and_travels_as_a_path(folder: Path, tmp_path: Path) -> None:
    plain = SoundBank.load(folder, split="all")
    cached = SoundBank.load(folder, split="all", cache=tmp_path)
    again = pickle.loads(pickle.dumps(SoundBank.load(folder, split="all", cache=tmp_path)))
    for one, two, three in zip(plain, cached, again, strict=True):
        np.testing.assert_array_equal(plain.samples(one), cached.samples(two))
        np.testing.assert_array_equal(plain.samples(one), again.samples(three))
    assert len(pickle.dumps(cached)) < 100_000


def test_clips_are_trimmed_and_of_unit_level(tmp_path: Path) -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    soundfile.write(tmp_path / "x.wav", np.concatenate([silence, tone(500, 1.0), silence]), RATE)
    (tmp_path / "manifest.csv").write_text("path,label\nx.wav,hum\n")
    bank = SoundBank.load(tmp_path, split="all")
    samples = bank.samples(next(iter(bank)))
    assert len(samples) == pytest.approx(RATE, abs=0.1 * RATE)
    assert np.sqrt(np.mean(samples[1000:-1000] ** 2)) == pytest.approx(1.0, rel=0.05)


def test_pick_understands_a_word_of_the_description(bank: SoundBank) -> None:
    rng = np.random.default_rng(0)
    picked = {bank.pick(["man_speaking:angry"], rng).recording for _ in range(20)}
    assert len(picked) == 1
    assert bank.count("man_speaking:furious") == 0


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("path,label\nmissing.wav,dog\n", "missing.wav"),
        ("path,label\n,dog\n", "row 2 has no 'path'"),
        ("file,label\nx.wav,dog\n", "no 'path'"),
        ("path,label\n", "no rows"),
        ("path,label\nbroken.wav,dog\n", "cannot be read"),
        ("path,label\nsilent.wav,dog\n", "silence"),
    ],
)
def test_unusable_folder_is_refused_with_a_sentence(
    tmp_path: Path, manifest: str, message: str
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not a sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "manifest.csv").write_text(manifest)
    with pytest.raises(DataError, match=message):
        SoundBank.load(tmp_path)


def test_scene_is_the_same_for_the_same_seed_and_visit(bank: SoundBank) -> None:
    captions = ["A man speaks then a dog barks", "Rain falls"]
    one, two = (SceneSet(captions, Lexicon.load(), bank, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.scene(0, 5).waveform, two.scene(0, 5).waveform)
    assert one.scene(0, 5).events == two.scene(0, 5).events


def test_every_visit_seed_and_caption_gives_a_new_mix(bank: SoundBank) -> None:
    captions = ["Rain falls", "Rain falls"]
    one, two = (SceneSet(captions, Lexicon.load(), bank, seed=seed) for seed in (0, 1))
    waveforms = [one.scene(0, 0), one.scene(0, 1), one.scene(1, 0), two.scene(0, 0)]
    hashes = {scene.waveform.tobytes() for scene in waveforms}
    assert len(hashes) == 4


def test_scene_set_leaves_out_what_the_bank_cannot_tell(bank: SoundBank) -> None:
    captions = ["A cat meows", "A dog barks", "An accordion plays"]
    scenes = SceneSet(captions, Lexicon.load(), bank)
    assert scenes.indices == (1,)
    assert scenes.scene(0).caption == "A dog barks"
    with pytest.raises(DataError, match="none of 1 captions"):
        SceneSet(captions[:1], Lexicon.load(), bank)


def test_sequence_is_heard_in_order(bank: SoundBank) -> None:
    plan = plan_of(["rain"], ["train_horn"])
    for seed in range(10):
        scene = compose(plan, bank, np.random.default_rng(seed))
        rain, horn = scene.events
        assert rain.end_s <= horn.start_s + 1e-6
        cut = round(rain.end_s * RATE)
        before, after = scene.waveform[:cut], scene.waveform[cut:]
        assert power(before, 600) > power(before, 1500)
        assert power(after, 1500) > power(after, 600)


@pytest.mark.parametrize("rain_is_far", [False, True])
def test_background_is_quieter(bank: SoundBank, rain_is_far: bool) -> None:
    rain = PlannedEvent((("rain",),), far=rain_is_far)
    horn = PlannedEvent((("train_horn",),), far=not rain_is_far)
    decibels = []
    for seed in range(20):
        scene = compose(Plan(((rain, horn),)), bank, np.random.default_rng(seed))
        levels = {event.label: event.level_db for event in scene.events}
        gap = levels["train_horn"] - levels["rain"]
        assert gap >= 5 if rain_is_far else gap <= -5
        heard = power(scene.waveform, 1500) / power(scene.waveform, 600)
        decibels.append(10 * np.log10(heard))
    assert np.median(decibels) > 5 if rain_is_far else np.median(decibels) < -5


def test_counted_sound_is_heard_so_often(bank: SoundBank) -> None:
    for count in (1, 2, 3, 5):
        track = lay(bank, ["dog_barking"], 8 * RATE, Manner(count=count), np.random.default_rng(1))
        loud = frame_levels_db(track.waveform, RATE // 50) > -20
        assert int(np.count_nonzero(np.diff(loud.astype(int)) == 1)) + int(loud[0]) == count


def test_steady_sound_fills_its_time_and_a_bark_does_not(bank: SoundBank) -> None:
    for label, least, most in (("rain", 0.97, 1.0), ("dog_barking", 0.02, 0.6)):
        track = lay(bank, [label], 10 * RATE, Manner(), np.random.default_rng(2))
        share = float(np.mean(frame_levels_db(track.waveform, RATE // 50) > -20))
        assert least <= share <= most


def test_burst_is_one_pulse_of_several() -> None:
    sound = tone(900, 4.0, pulse=1.0)
    assert len(burst(sound, RATE, 2 * RATE)) == pytest.approx(0.2 * RATE, abs=0.06 * RATE)


def test_approach_grows_and_varispeed_raises_the_pitch() -> None:
    sound = tone(500, 4.0)
    near = effects.approach(sound, effects.ramp([0.0, 1.0], [0.0, 1.0], len(sound)), RATE)
    assert np.std(near[-RATE:]) > 4 * np.std(near[:RATE])
    fast = effects.varispeed(sound, np.full(2 * RATE, 1.5, dtype=np.float32))
    assert power(fast, 750) > 100 * power(fast, 500)


def test_room_adds_energy_after_the_sound_only() -> None:
    click = np.zeros(4 * RATE, dtype=np.float32)
    click[RATE] = 1.0
    heard = effects.place(click, click, np.random.default_rng(0), RATE, room=True, color=False)
    assert np.abs(heard[: RATE - 1]).max() < 1e-4
    assert np.sum(heard[RATE + 1 :] ** 2) == pytest.approx(1.0, rel=0.15)


def test_mu_law_keeps_the_sound_within_an_eighth_of_a_bit() -> None:
    sound = np.linspace(-1, 1, 2001, dtype=np.float32)
    assert np.abs(effects.mu_law(sound) - sound).max() < 0.03
    assert len(np.unique(effects.mu_law(sound))) < 256


def test_random_scenes_are_never_silent_clipped_or_broken(bank: SoundBank) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        scene = random_scene(bank, rng, seconds=5.0)
        assert scene.waveform.shape == (5 * RATE,)
        assert scene.waveform.dtype == np.float32
        assert np.isfinite(scene.waveform).all()
        assert 0.015 < np.abs(scene.waveform).max() < 1.0  # -36 dB and up
        assert 1 <= len(scene.events) <= 4
        assert all(0 <= event.start_s < event.end_s <= 5 for event in scene.events)


def test_render_takes_only_the_placed_sounds(bank: SoundBank) -> None:
    placed = [Placed(("rain",), 0, 5 * RATE, 0.0)]
    scene = render(placed, bank, np.random.default_rng(0), 5 * RATE, "Rain")
    assert [event.label for event in scene.events] == ["rain"]
    assert power(scene.waveform, 600) > 100 * power(scene.waveform, 1500)


def test_compose_refuses_a_sound_that_the_bank_lacks(bank: SoundBank) -> None:
    with pytest.raises(DataError, match="not in this bank"):
        compose(plan_of(["cat_meowing"]), bank, np.random.default_rng(0))


def test_weights_favour_rare_sounds_within_bounds(bank: SoundBank) -> None:
    captions = ["Rain falls"] * 200 + ["A dog barks"]
    weights = SceneSet(captions, Lexicon.load(), bank).weights()
    assert weights.mean() == pytest.approx(1.0)
    assert weights[-1] == pytest.approx(5 * weights[0])


def test_listening_sheet_holds_the_sounds_and_escapes_captions(
    bank: SoundBank, tmp_path: Path
) -> None:
    plan = plan_of(["rain"])
    scene = compose(plan, bank, np.random.default_rng(0), 2.0, "rain <b>& wind</b>")
    write_listening_sheet([scene], tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text("utf-8")
    assert page.count("data:audio/ogg;base64,") == 1
    assert "rain &lt;b&gt;&amp; wind" in page


def test_command_writes_a_sheet_and_says_what_cannot_be_told(folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text('id,caption\n1,"A dog barks, then\na man speaks"\n2,A zither is tuned\n')
    out = tmp_path / "sheet.html"
    run = CliRunner().invoke(
        app, ["scenes", str(folder), "--captions", str(captions), "-o", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert "1 of 2 captions can be mixed" in run.output
    assert "'A zither is tuned': " in run.output
    page = out.read_text("utf-8")
    assert "A dog barks, then a man speaks" in page
    again = tmp_path / "again.html"
    settings = ["--count", "3", "--seconds", "2", "--seed", "4"]
    for _ in range(2):
        run = CliRunner().invoke(app, ["scenes", str(folder), "-o", str(again), *settings])
    assert run.output.endswith("again.html: 3 scenes\n")
    assert again.read_text("utf-8").count("<article>") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,text\n1,rain\n", "no column 'caption'; a table of captions has caption"),
        ("caption\n \n", "holds no caption"),
    ],
)
def test_command_names_what_is_wrong_with_captions(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    run = CliRunner().invoke(
        app,
        ["scenes", str(folder), "--captions", str(tmp_path / "bad.csv"), "-o", str(tmp_path / "s")],
    )
    assert isinstance(run.exception, DataError)
    assert message in str(run.exception)


def test_split_of_the_shared_sounds_shares_no_recording(shared_data: Path) -> None:
    rows = read_manifest(shared_data / "train_audio")
    heldout = heldout_recordings(rows, 0.12)
    clips = sum(recording_of(row) in heldout for row in rows)
    assert 0.05 < clips / len(rows) < 0.12
    training = {row["label"] for row in rows if recording_of(row) not in heldout}
    assert training == {row["label"] for row in rows}


def test_plans_of_human_captions_name_labels_only(shared_data: Path) -> None:
    labels = {row["label"] for row in read_manifest(shared_data / "train_audio")}
    lexicon = Lexicon.load()
    captions = read_audiocaps(shared_data / "captions" / "audiocaps_val.csv")
    plans = [plan for row in captions[:500] if (plan := lexicon.parse(row.caption))]
    named = {part.partition(":")[0] for plan in plans for event in plan.events
             for candidate in event.candidates for part in candidate}  # fmt: skip
    assert named <= labels
