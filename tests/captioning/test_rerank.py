"""Reranked captions: the order by hand, in Python, on the command line and in the service."""

import json
import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_clap
import torch
from builders import noise, tiny_captioner
from heard import RATE, TONES, knowing_captioner, tone, write_sound
from link_parts import tiny_dual, untrained_link
from serving import in_thread, sound
from torch.nn.functional import normalize

from earwitness import audio
from earwitness.caption import Caption
from earwitness.captioning.local import caption_files
from earwitness.captioning.pipeline import CaptionSettings
from earwitness.captioning.rerank import CONSENSUS, Reranker, consensus, overlap_f1
from earwitness.captioning.segments import Windows
from earwitness.captioning.sources import Source
from earwitness.cli import app
from earwitness.cli.caption import caption
from earwitness.encoders import save_embedding_encoder
from earwitness.encoders.clap import ClapEncoder
from earwitness.errors import CheckpointError, ConfigError
from earwitness.serve.settings import Settings
from earwitness.system.audio_text import TorchAudioText
from earwitness.system.captioner import TorchCaptioner

TEXTS = [*TONES.values()]


class KnownClap:
    """Texts are the axes of a space; every sound lies where `cosines` say."""

    def __init__(self, cosines: Sequence[float], rate: int = RATE) -> None:
        self.sound = np.array(cosines)
        self.sample_rate = rate
        self.heard: list[list[int]] = []
        self.read: list[list[str]] = []

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        self.heard.append([len(w) for w in waveforms])
        return np.tile(self.sound, (len(waveforms), 1))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        self.read.append(list(texts))
        return np.eye(4)[[TEXTS.index(text) for text in texts]]


def row(*candidates: tuple[str, float]) -> list[Caption]:
    return [Caption(text, score, 0.0, 1.0, "m") for text, score in candidates]


def talkative(captioner: TorchCaptioner) -> TorchCaptioner:
    """The untrained captioner with uneven odds, so that its captions have words."""
    with torch.no_grad():
        for name, weight in captioner.decoder.model.named_parameters():
            weight.mul_(10 if "proj" in name else 1)
    return captioner


CANDIDATES = row(("a dog barks", 0.8), ("rain falls", 0.5), ("a siren wails", 0.4))
COSINES = (0.1, 0.3, 0.9, 0.0)


@pytest.mark.parametrize(
    ("weight", "order"),
    [
        # log 0.8 = -0.22, log 0.5 = -0.69, log 0.4 = -0.92
        (0.0, ["a dog barks", "rain falls", "a siren wails"]),
        # -0.157, -0.395, -0.371
        (0.3, ["a dog barks", "a siren wails", "rain falls"]),
        # -0.062, -0.197, -0.008
        (0.5, ["a siren wails", "a dog barks", "rain falls"]),
        (1.0, ["a siren wails", "rain falls", "a dog barks"]),
    ],
)
def test_order_mixes_cosine_and_log_probability(weight: float, order: list[str]) -> None:
    reranker = Reranker("known", weight, KnownClap(COSINES))
    ranked = reranker([noise(1.0)], RATE, [CANDIDATES])[0]
    assert [c.text for c in ranked] == order
    assert {c.text: (c.score, round(c.rerank or 0, 6)) for c in ranked} == {
        "a dog barks": (0.8, 0.1),
        "rain falls": (0.5, 0.3),
        "a siren wails": (0.4, 0.9),
    }


def test_caption_without_words_goes_last() -> None:
    rows = [row(("", 0.9), (" . ", 0.8), ("rain falls", 0.1)), row(("", 0.9))]
    for reranker in (Reranker("known", 0.5, KnownClap(COSINES)), Reranker.load(CONSENSUS)):
        first, second = reranker([noise(1.0)] * 2, RATE, rows)
        assert [c.text for c in first] == ["rain falls", "", " . "]
        assert [c.rerank is None for c in first] == [False, True, True]
        assert [c.text for c in second] == [""]


def test_words_and_pairs_in_common_by_hand() -> None:
    # Words: a, dog of 3 and 4; pairs: "a dog" of 2 and 3. 2 * (2 + 1) / (5 + 7).
    assert overlap_f1("A dog barks.", "a dog runs off") == pytest.approx(0.5)
    assert overlap_f1("a dog", "a dog") == 1.0
    assert overlap_f1("a dog", "rain falls") == 0.0


def test_consensus_is_the_expected_agreement_of_a_double_loop() -> None:
    texts = ["a dog barks", "a dog barks loudly", "rain falls", "a dog growls", "a dog barks"]
    logs = [-0.3, -0.7, -0.2, -1.1, -0.9]

    def grams(text: str) -> list[str]:
        words = text.split()
        return words + [f"{x} {y}" for x, y in zip(words[:-1], words[1:], strict=True)]

    def agreement(x: str, y: str) -> float:
        common, rest = 0, grams(y)
        for gram in grams(x):
            if gram in rest:
                rest.remove(gram)
                common += 1
        recall, precision = common / len(grams(y)), common / len(grams(x))
        return 2 * recall * precision / (recall + precision) if common else 0.0

    expected = []
    for i in range(5):
        top = bottom = 0.0
        for j in range(5):
            if i != j:
                top += math.exp(logs[j]) * agreement(texts[i], texts[j])
                bottom += math.exp(logs[j])
        expected.append(top / bottom)
    assert consensus(texts, logs) == pytest.approx(expected)
    chosen = Reranker.load(CONSENSUS)
    rows = [[Caption(t, math.exp(p), 0.0, 1.0, "m") for t, p in zip(texts, logs, strict=True)]]
    best = chosen([noise(1.0)], RATE, rows)[0][0]
    assert (best.text, best.rerank) == (texts[int(np.argmax(expected))], max(expected))


def test_consensus_does_not_depend_on_the_order_of_the_candidates() -> None:
    texts, logs = ["a b", "a b c", "c d", "a d"], [-1.0, -2.0, -0.5, -700.0]
    known = dict(zip(texts, consensus(texts, logs), strict=True))
    for order in permutations(range(4)):
        found = consensus([texts[i] for i in order], [logs[i] for i in order])
        assert found == pytest.approx([known[texts[i]] for i in order])


def test_consensus_takes_another_agreement_and_one_text_has_none() -> None:
    assert consensus(["x", "y"], [-1.0, -1.0], lambda first, _: float(first == "x")) == [1.0, 0.0]
    assert consensus(["x"], [-1.0]) == [0.0]
    assert consensus([], []) == []


def test_batch_is_heard_once_and_each_text_read_once() -> None:
    clap = KnownClap(COSINES)
    waveforms = [noise(1.0), noise(2.0)]
    Reranker("known", 0.5, clap)(waveforms, RATE, [CANDIDATES, CANDIDATES[:2]])
    assert clap.heard == [[RATE, 2 * RATE]]
    assert clap.read == [sorted(c.text for c in CANDIDATES)]


def test_clap_of_another_rate_hears_the_resampled_sound() -> None:
    clap = KnownClap(COSINES, rate=48000)
    Reranker("known", 0.5, clap)([noise(1.5)], RATE, [CANDIDATES])
    assert clap.heard == [[72000]]


def test_at_least_eight_are_compared_and_as_many_told_as_asked(monkeypatch) -> None:
    captioner, asked = tiny_captioner(), []
    run = captioner.caption_waveforms

    def noted(waveforms, decoding=None):
        asked.append(decoding.n_best)
        return run(waveforms, decoding)

    monkeypatch.setattr(captioner, "caption_waveforms", noted)
    reranker = Reranker.load(CONSENSUS)
    for n_best in (1, 3, 9):
        settings = captioner.config.decoding.model_copy(update={"n_best": n_best})
        assert len(reranker.captions(captioner, [noise(1.0)], settings)[0]) == n_best
    assert asked == [8, 8, 9]


def test_dual_encoder_orders_by_its_own_cosine(tmp_path: Path) -> None:
    dual = tiny_dual()
    save_embedding_encoder(dual, tmp_path)
    samples = noise(1.0, seed=4)
    ranked = Reranker.load(tmp_path, 1.0)([samples], RATE, [CANDIDATES])[0]
    texts = [c.text for c in CANDIDATES]
    e_a = dual.embed_audio([torch.from_numpy(samples)])[0]
    cosines = normalize(dual.embed_text(texts), dim=1) @ e_a
    order = cosines.argsort(descending=True).tolist()
    assert [c.text for c in ranked] == [texts[i] for i in order]
    assert [c.rerank for c in ranked] == pytest.approx(cosines[order].tolist(), abs=1e-6)


def test_hugging_face_clap_hears_the_same_decoded_samples(tmp_path: Path) -> None:
    encoder = ClapEncoder.from_folder(tiny_clap.write_folder(tmp_path))
    samples = noise(1.0)
    ranked = Reranker.load(tmp_path, 1.0)([samples], RATE, [CANDIDATES])[0]
    e_a = encoder.embed_audio([audio.load((samples, RATE), 48000)])[0]
    expected = {c.text: float(encoder.embed_text([c.text])[0] @ e_a) for c in CANDIDATES}
    assert {c.text: c.rerank for c in ranked} == pytest.approx(expected, abs=1e-5)


def test_diffusion_link_folder_stands_for_its_encoder(tmp_path: Path) -> None:
    captioner = untrained_link()
    captioner.save(tmp_path / "link")
    save_embedding_encoder(captioner.encoder.encoder, tmp_path / "dual")
    found = [
        Reranker.load(tmp_path / name, 1.0)([noise(1.0)], RATE, [CANDIDATES])
        for name in ("link", "dual")
    ]
    assert found[0] == found[1]


def test_what_reads_no_text_cannot_rerank(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path)
    with pytest.raises(CheckpointError, match="its encoder does not read text.*'consensus'"):
        Reranker.load(tmp_path)
    with pytest.raises(CheckpointError, match="concensus: no such model folder.*or 'consensus'"):
        Reranker.load("concensus")
    with pytest.raises(ConfigError, match="expected a rerank weight from 0 to 1, got 1.5"):
        Reranker.load(CONSENSUS, 1.5)


def test_captioner_returns_the_reranked_captions() -> None:
    captioner = talkative(tiny_captioner(guide=None))
    sounds = [(noise(1.0, seed=i), RATE) for i in range(3)]
    reranker = Reranker("dual", 1.0, TorchAudioText(tiny_dual()))
    listed = [captioner.n_best(sound, 8, rerank=reranker) for sound in sounds]
    assert len({c.text for c in listed[0] if c.rerank is not None}) > 4
    listed = [[c for c in found if c.rerank is not None] for found in listed]
    assert [[c.rerank for c in r] for r in listed] == [
        sorted((c.rerank for c in r), reverse=True) for r in listed
    ]
    best = captioner.caption(sounds[1], rerank=reranker)
    assert best.text == listed[1][0].text
    assert (best.start_s, best.end_s, best.model) == (0.0, 1.0, "tiny")
    plain = captioner.n_best(sounds[0], 8)
    assert {c.text for c in listed[0]} == {c.text for c in plain if c.text.strip(" ,.'")}


def test_file_is_decoded_once(tmp_path: Path, monkeypatch) -> None:
    path = write_sound(tmp_path / "x.wav", tone(200, 12))
    opened: list[object] = []
    stream = audio.stream

    def counted(source, *arguments, **options):
        opened.append(source)
        return stream(source, *arguments, **options)

    monkeypatch.setattr(audio, "stream", counted)
    clap = KnownClap(COSINES)
    listening = CaptionSettings(Windows(5.0, 5.0, 5.0), reranker=Reranker("known", 1.0, clap))
    heard = next(caption_files(knowing_captioner(), [Source("x", path)], listening))[0]
    assert opened == [path]
    assert clap.heard == [[5 * RATE] * 3]
    assert [(s.caption, s.rerank) for s in heard.segments] == [("a siren wails", 0.9)]


@pytest.fixture
def known(monkeypatch) -> KnownClap:
    """Rerankers that are loaded from "known" are this one, captioners know their tones."""
    clap = KnownClap(COSINES)
    load = Reranker.load
    monkeypatch.setattr(
        Reranker,
        "load",
        lambda name, weight=None, device="cpu": (
            load(name, weight)
            if name == CONSENSUS
            else Reranker(str(name), 0.5 if weight is None else weight, clap)
        ),
    )
    monkeypatch.setattr(TorchCaptioner, "load", lambda *_: knowing_captioner())
    monkeypatch.setattr("earwitness.captioning.rerank.audio_text_folder", lambda name: Path(name))
    return clap


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    only = type(app)(pretty_exceptions_enable=False)
    only.command()(caption)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        only(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write_sound(tmp_path / "x.wav", tone(200, 2) + tone(700, 2, 0.28)))


def test_command_line_tells_both_scores(known, capsys, clip: str, tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "m")
    common = (clip, "--model", str(tmp_path / "m"), "--rerank", "known")
    code, out, _ = run(capsys, *common, "--rerank-weight", "1", "-n", "3", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["caption"] == "a siren wails"
    assert [(c["caption"], c["rerank"]) for c in record["captions"]] == [
        ("a siren wails", 0.9),
        ("rain falls", 0.3),
        ("a dog barks", 0.1),
    ]
    assert record["captions"][2]["score"] == pytest.approx(0.534, abs=0.01)
    assert (record["score"], record["rerank"]) == (record["captions"][0]["score"], 0.9)
    # -0.314 + 0.05 and -0.38 + 0.15: the rain is nearly as loud, and fits the CLAP better.
    assert run(capsys, *common)[1] == "rain falls\n"
    code, out, _ = run(capsys, *common, "-n", "2", "-f", "csv")
    assert out.splitlines()[0] == "file,caption,score,model,start,end,rank"


def test_results_of_another_reranker_are_not_mixed(known, capsys, clip, tmp_path) -> None:
    tiny_captioner().save(tmp_path / "m")
    common = (clip, "--model", str(tmp_path / "m"), "-o", str(tmp_path / "out.csv"))
    assert run(capsys, *common, "--rerank", "known")[0] == 0
    assert run(capsys, *common, "--rerank", "known")[0] == 0
    for other in ((), ("--rerank", "consensus"), ("--rerank", "known", "--rerank-weight", "1")):
        code, _, err = run(capsys, *common, *other)
        assert (code, "settings" in err) == (1, True)


def test_wrong_use_of_the_options(known, capsys, clip: str) -> None:
    code, _, err = run(capsys, clip, "--rerank-weight", "0.3")
    assert (code, "needs --rerank" in err) == (2, True)


def test_service_reranks_what_it_was_given(clip: str) -> None:
    reranker = Reranker("known", 0.5, KnownClap(COSINES))
    with in_thread(knowing_captioner(), Settings(demo=False), reranker=reranker) as url:

        def post(**fields: str) -> httpx.Response:
            files = {"file": ("x.wav", Path(clip).read_bytes())}
            return httpx.post(f"{url}/v1/audio/captions", files=files, data=fields, timeout=120)

        plain = post(n_best="3").json()
        assert "rerank" not in plain
        assert "rerank" not in plain["captions"][0]
        found = post(rerank="known", rerank_weight="1", n_best="3").json()
        assert [(c["caption"], c["rerank"]) for c in found["captions"]] == [
            ("a siren wails", 0.9),
            ("rain falls", 0.3),
            ("a dog barks", 0.1),
        ]
        assert post(rerank="known").json()["caption"] == "rain falls"
        assert 0 <= post(rerank="consensus").json()["rerank"] <= 1
        for fields, sentence in (
            ({"rerank": "/etc"}, "rerank='/etc'; this service accepts consensus, known"),
            ({"rerank_weight": "0.5"}, "rerank_weight needs rerank"),
        ):
            refused = post(**fields)
            assert (refused.status_code, refused.json()["error"]["message"]) == (422, sentence)


def test_service_of_a_link_model_reranks_with_its_own_encoder() -> None:
    captioner = talkative(untrained_link())
    with in_thread(captioner, Settings(demo=False)) as url:
        answer = httpx.post(
            f"{url}/v1/audio/captions",
            files={"file": ("x.wav", sound(noise(1.0)))},
            data={"rerank": "tiny-link", "rerank_weight": "1"},
            timeout=120,
        ).json()
    own = Reranker("own", 1.0, captioner.audio_text)
    best = captioner.caption(sound(noise(1.0)), rerank=own)
    assert answer["caption"] == best.text != ""
    assert answer["rerank"] == pytest.approx(best.rerank, abs=1e-3)
