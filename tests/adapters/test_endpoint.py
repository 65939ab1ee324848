"""Captions from a server that speaks OpenAI's chat API, against a stand-in on this computer."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chat_server import ChatServer, serving

from earwitness import Captioner
from earwitness.adapters.settings import PROMPT, AdapterOptions
from earwitness.captioning.captioner import open_captioner
from earwitness.cli import app
from earwitness.cli.caption import caption
from earwitness.errors import ConfigError

pytest.importorskip("openai", reason="needs the extra endpoint")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with serving(ChatServer()) as found:
        yield found


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(16_000 * seconds) / 16_000)).astype("f4")


def load(server: ChatServer, model: str = "ears", **options) -> Captioner:
    return open_captioner(f"openai:{model}", options=AdapterOptions(base_url=server.url, **options))


def test_caption_is_the_answer_to_the_sound_that_was_sent(server):
    captioner = load(server)
    assert isinstance(captioner, Captioner)
    found = captioner.caption((tone(440), 16_000))
    assert found.text == "a tone of 440 Hz"
    assert found.score == pytest.approx(0.5)
    assert (found.model, found.end_s) == ("openai:ears", 1.0)
    [request] = server.requests
    sound, question = request["messages"][0]["content"]
    assert sound["input_audio"]["format"] == "wav"
    assert question == {"type": "text", "text": PROMPT}
    assert (request["temperature"], request["max_tokens"]) == (0.0, 80)


def test_batch_keeps_the_order_of_the_sounds(server):
    pitches = [200 + 100 * n for n in range(20)]
    found = load(server).caption_batch([(tone(hertz), 16_000) for hertz in pitches])
    assert [one.text for one in found] == [f"a tone of {hertz} Hz" for hertz in pitches]


def test_n_best_are_sorted_by_their_probability(server):
    found = load(server).n_best((tone(440), 16_000), 3)
    assert [round(one.score, 3) for one in found] == [0.7, 0.6, 0.5]
    assert server.requests[0]["n"] == 3


def test_server_without_probabilities_gives_the_score_zero(server):
    server.probabilities = False
    assert load(server).caption((tone(440), 16_000)).score == 0.0


def test_busy_server_is_asked_again(server):
    server.problems = [503, 429]
    assert load(server).caption((tone(440), 16_000)).text == "a tone of 440 Hz"
    assert len(server.requests) == 3


def test_server_that_takes_sound_by_url_alone_is_asked_so_from_then_on(server):
    server.parts = ("audio_url",)
    captioner = load(server)
    found = [captioner.caption((tone(hertz), 16_000)).text for hertz in (300, 400)]
    assert found == ["a tone of 300 Hz", "a tone of 400 Hz"]
    kinds = [request["messages"][0]["content"][0]["type"] for request in server.requests]
    assert kinds == ["input_audio", "audio_url", "audio_url"]


def test_key_comes_from_the_environment_and_a_wrong_one_is_one_sentence(server, monkeypatch):
    server.key = "sesame"
    with pytest.raises(ConfigError, match=r"refuses the key in OPENAI_API_KEY \(401\)"):
        load(server).caption((tone(440), 16_000))
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    assert load(server).caption((tone(440), 16_000)).text == "a tone of 440 Hz"


def test_missing_model_server_and_key_are_one_sentence(server, monkeypatch):
    with pytest.raises(ConfigError, match="openai:nose: not at http.*does not exist"):
        load(server, "nose").caption((tone(440), 16_000))
    with pytest.raises(ConfigError, match="needs --base-url http://HOST:PORT/v1"):
        Captioner.load("openai:ears")
    with pytest.raises(ConfigError, match="--quantize nf4: the server decides"):
        load(server, quantize="nf4")
    monkeypatch.setattr("earwitness.adapters.endpoint._RETRIES", 0)
    nobody = AdapterOptions(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="openai:ears: no answer from http://127.0.0.1:9/v1"):
        open_captioner("openai:ears", options=nobody).caption((tone(440), 16_000))


@pytest.fixture
def run(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for number, hertz in enumerate((300, 400, 500)):
        soundfile.write(f"clips/{number}.wav", tone(hertz), 16_000)
    soundfile.write("long.wav", np.concatenate([tone(300, 10), tone(600, 10)]), 16_000)
    only = type(app)(pretty_exceptions_enable=False)
    only.command()(caption)

    def run_caption(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            only(["--model", "openai:ears", "--base-url", server.url, *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_caption


def test_folder_and_subtitles_work_as_with_any_model(run):
    assert run("clips", "-q", "-o", "captions.jsonl")[0] == 0
    lines = [json.loads(line) for line in Path("captions.jsonl").read_text().splitlines()]
    assert [one["caption"] for one in lines] == [f"a tone of {h} Hz" for h in (300, 400, 500)]
    code, out, _ = run("long.wav", "-q", "-f", "srt")
    assert code == 0
    assert "00:00:00,000 --> 00:00:10,000\na tone of 300 Hz" in out
    assert "00:00:10,000 --> 00:00:20,000\na tone of 600 Hz" in out


def test_request_that_is_refused_fails_for_its_file_alone(run, server):
    server.problems = [400, 400]
    code, _, err = run("clips", "-q", "-o", "captions.jsonl", "--batch-size", "1")
    assert code == 1
    assert "clips/0.wav: unexpected BadRequestError" in err
    assert len(Path("captions.jsonl").read_text().splitlines()) == 2


def test_other_prompt_is_another_job(run):
    assert run("clips", "-q", "-o", "captions.jsonl")[0] == 0
    code, _, err = run("clips", "-q", "-o", "captions.jsonl", "--prompt", "Well?")
    assert code == 1
    assert "another model or other settings" in err
