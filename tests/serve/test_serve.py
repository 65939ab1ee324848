"""The service as its users meet it: the real command in a process, the stock OpenAI client."""

import io
import json
import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from builders import noise, tiny_model_folder
from serving import Process, noise_silence_noise, sound, wav

from earwitness.captioning import subtitles
from earwitness.captioning.local import caption_segments
from earwitness.captioning.pipeline import CaptionSettings
from earwitness.captioning.segments import Windows
from earwitness.system.captioner import TorchCaptioner

TIMEOUT = 240


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def captioner(model: Path) -> TorchCaptioner:
    return TorchCaptioner.load(model)


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    running = Process(
        tmp_path_factory.mktemp("service"),
        *("--model", str(model), "--no-demo", "--max-mb", "4", "--max-seconds", "100"),
        *("--access-log",),
    )
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def client(service: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=TIMEOUT
    ) as made:
        yield made


def post(
    service: Process, contents: bytes, name: str = "a.wav", **fields: object
) -> httpx.Response:
    return httpx.post(
        f"{service.url}/v1/audio/captions",
        files={"file": (name, contents)},
        data={key: str(value) for key, value in fields.items()},
        timeout=TIMEOUT,
    )


def events(text: str) -> list[tuple[str, dict]]:
    """(name, data) of server-sent events."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


def test_caption_is_that_of_the_captioner(service: Process, captioner: TorchCaptioner) -> None:
    answer = post(service, wav(2.0, seed=3), name="dog.wav").json()
    expected = captioner.caption((noise(2.0, seed=3), 16000))
    assert answer["caption"] == expected.text
    assert answer["score"] == pytest.approx(expected.score, abs=1e-3)
    assert (answer["file"], answer["model"], answer["seconds"]) == ("dog.wav", "tiny", 2.0)


def test_n_best_gives_that_many_captions_in_order(service: Process) -> None:
    scores = [c["score"] for c in post(service, wav(), n_best=3).json()["captions"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_long_sound_has_the_segments_of_the_command_line(
    service: Process, captioner: TorchCaptioner
) -> None:
    samples = noise_silence_noise()
    answer = post(service, sound(samples), window=5, hop=4).json()
    expected = caption_segments(
        captioner,
        (samples, 16000),
        CaptionSettings(Windows(window=5.0, hop=4.0, whole=7.5), timed=True),
    )
    assert [(s["start"], s["end"], s["caption"]) for s in answer["segments"]] == [
        (s.start, s.end, s.caption) for s in expected
    ]


def test_stream_gives_the_segments_and_then_the_record(service: Process) -> None:
    contents = sound(noise_silence_noise())
    streamed = post(service, contents, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *segments, (last, record) = events(streamed.text)
    assert {name for name, _ in segments} == {"segment"}
    assert last == "done"
    assert [data for _, data in segments] == record["segments"]
    assert record == post(service, contents, timed=True).json()


def test_stream_of_a_damaged_file_ends_with_the_error(service: Process) -> None:
    name, data = events(post(service, b"no sound at all", stream=True).text)[-1]
    assert name == "error"
    assert "is not a sound" in data["error"]["message"]


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_parse_and_have_no_cue_for_silence(service: Process, kind: str) -> None:
    answer = post(service, sound(noise_silence_noise()), response_format=kind)
    cues = subtitles.parse(answer.text).cues
    assert (cues[0].start, cues[-1].end) == (0.0, 60.0)
    assert not any(cue.start < 30.0 < cue.end for cue in cues)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_sounds_are_put_between_the_lines_of_speech(service: Process, encoding: str) -> None:
    speech = "1\n00:00:01,000 --> 00:00:03,000\nHello there.\n\n2\n00:00:0x --> 1\nBad.\n"
    answer = httpx.post(
        f"{service.url}/v1/audio/captions",
        files={"file": ("a.wav", wav(12.0)), "merge": ("speech.srt", speech.encode(encoding))},
        data={"response_format": "srt"},
        timeout=TIMEOUT,
    )
    texts = [cue.text for cue in subtitles.parse(answer.text).cues]
    assert "Hello there." in texts
    assert answer.headers["X-Cues-Left-Out"] == "1"
    assert any(text.startswith("[") for text in texts)


def test_same_sounds_at_once_get_the_captions_they_get_alone(service: Process) -> None:
    sounds = [wav(1.0 + 0.3 * seed, seed) for seed in range(8)]
    alone = [post(service, contents).json() for contents in sounds]
    with ThreadPoolExecutor(8) as pool:
        together = [answer.json() for answer in pool.map(lambda c: post(service, c), sounds)]
    assert [a["caption"] for a in together] == [a["caption"] for a in alone]


@pytest.mark.parametrize(
    ("contents", "fields", "status", "sentence"),
    [
        (b"hello", {}, 415, "'a.wav' is not a sound in a known format"),
        (b"", {}, 415, "is empty"),
        (wav()[:9000], {}, 415, "is cut off"),
        (sound(noise(101)), {}, 413, "is longer than the limit of 100 s"),
        (bytes(5_000_000), {}, 413, "is larger than the limit of 4000000 bytes"),
        (wav(), {"beam": "0"}, 422, "'beam'"),
        (wav(), {"beam": "99"}, 422, "beam=99; this service accepts 1 to 16"),
        (wav(), {"n_best": "many"}, 422, "'n_best'"),
        (wav(), {"beem": "4"}, 422, "did you mean 'beam'?"),
        (wav(), {"window": "5", "hop": "9"}, 422, "the window length, 5 s, got 9 s"),
        (wav(), {"whole": "3000"}, 422, "whole=3000 s"),
        (wav(), {"seed": "1"}, 422, "seed needs sample=true"),
        (wav(), {"sample": "true", "beam": "2"}, 422, "exclude each other"),
        (wav(), {"response_format": "xml"}, 422, "'response_format'"),
        (wav(), {"model": "gpt-4o"}, 404, "model 'gpt-4o' is not served here"),
    ],
)
def test_bad_request_gets_its_status_and_one_sentence(
    service: Process, contents: bytes, fields: dict, status: int, sentence: str
) -> None:
    answer = post(service, contents, **fields)
    message = answer.json()["error"]["message"]
    assert (answer.status_code, sentence in message) == (status, True), message
    assert "\n" not in message
    assert "Traceback" not in message


def test_missing_file_and_unknown_path_get_a_sentence(service: Process) -> None:
    missing = httpx.post(f"{service.url}/v1/audio/captions", timeout=TIMEOUT)
    assert (missing.status_code, missing.json()["error"]["message"]) == (
        422,
        "the field 'file' is missing",
    )
    unknown = httpx.get(f"{service.url}/v2/all", timeout=TIMEOUT)
    assert unknown.status_code == 404
    assert "there is no GET /v2/all" in unknown.json()["error"]["message"]


def test_upload_without_a_length_is_stopped_at_the_limit(service: Process) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while sent < 400_000_000:
            sent += 1_000_000
            yield bytes(1_000_000)

    answer = httpx.post(
        f"{service.url}/v1/audio/captions",
        content=endless(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 413


def test_openai_client_gets_text_and_json(client: openai.OpenAI, captioner: TorchCaptioner) -> None:
    expected = captioner.caption((noise(1.0, seed=5), 16000)).text
    file = ("sound.wav", wav(1.0, seed=5))
    transcription = client.audio.transcriptions.create(file=file, model="whisper-1")
    assert transcription.text == expected
    text = client.audio.transcriptions.create(file=file, model="tiny", response_format="text")
    assert text == expected + "\n"


def test_openai_client_gets_verbose_json(client: openai.OpenAI) -> None:
    verbose = client.audio.transcriptions.create(
        file=("sound.wav", sound(noise_silence_noise())),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        language="en",
        prompt="ignored",
    )
    assert verbose.duration == 60.0
    assert verbose.segments is not None
    assert [s.id for s in verbose.segments] == list(range(len(verbose.segments)))
    assert (verbose.segments[0].start, verbose.segments[-1].end) == (0.0, 60.0)
    spoken = [s for s in verbose.segments if s.no_speech_prob == 0]
    assert 0 < len(spoken) < len(verbose.segments)
    assert all(s.avg_logprob < 0 for s in spoken)


def test_verbose_log_probability_is_that_of_the_score(service: Process) -> None:
    verbose = httpx.post(
        f"{service.url}/v1/audio/transcriptions",
        files={"file": ("a.wav", wav(seed=7))},
        data={"model": "tiny", "response_format": "verbose_json"},
        timeout=TIMEOUT,
    ).json()
    score = post(service, wav(seed=7)).json()["score"]
    assert math.exp(verbose["segments"][0]["avg_logprob"]) == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_openai_client_gets_subtitles(client: openai.OpenAI, kind: str) -> None:
    text = client.audio.transcriptions.create(
        file=("a.wav", wav(2.0)), model="whisper-1", response_format=kind
    )
    cue = subtitles.parse(str(text)).cues[0]
    assert (cue.start, cue.end) == (0.0, 2.0)


def test_openai_client_streams(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(
        file=("a.wav", sound(noise_silence_noise())), model="whisper-1", stream=True
    )
    *deltas, done = list(stream)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert done.text
    assert "".join(event.delta for event in deltas) == done.text


def test_openai_client_sees_models_and_errors(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny", "whisper-1"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.audio.transcriptions.create(file=("a.wav", wav()), model="gpt-4o-transcribe")
    with pytest.raises(openai.APIStatusError, match="is not a sound") as caught:
        client.audio.transcriptions.create(file=("a.wav", io.BytesIO(b"text")), model="tiny")
    assert caught.value.status_code == 415
    with pytest.raises(openai.UnprocessableEntityError, match="times per 'segment'"):
        client.audio.transcriptions.create(
            file=("a.wav", wav()),
            model="tiny",
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )


def test_metrics_count_requests_sound_and_batches(service: Process) -> None:
    def value(name: str) -> float:
        text = httpx.get(f"{service.url}/metrics", timeout=TIMEOUT).text
        return sum(float(v) for v in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M))

    name = 'earwitness_requests_total{path="/v1/audio/captions",status="200"}'
    requests, seconds = value(name), value("earwitness_sound_seconds_total")
    post(service, wav(3.0))
    assert value(name) == requests + 1
    assert value("earwitness_sound_seconds_total") == pytest.approx(seconds + 3.0)
    assert value("earwitness_batch_windows_count") > 0


def test_nothing_of_the_content_is_logged_or_left_behind(
    service: Process, captioner: TorchCaptioner
) -> None:
    caption = post(service, wav(2.0), name="secret-name.wav").json()["caption"]
    post(service, b"secret content", name="secret-name.txt")
    log = service.log.read_text(encoding="utf-8", errors="replace")
    assert "POST /v1/audio/captions" in log
    assert "secret" not in log
    assert caption not in log
    assert service.files() == []


def test_stop_finishes_what_was_accepted(model: Path, tmp_path: Path) -> None:
    running = Process(tmp_path, "--model", str(model), "--no-demo", "--batch-size", "1")
    answers: list[httpx.Response] = []
    contents = sound(noise(30, seed=4))
    asked = threading.Thread(
        target=lambda: answers.append(post(running, contents, window=1, beam=4))
    )
    asked.start()
    while "in_flight 1.0" not in httpx.get(f"{running.url}/metrics", timeout=TIMEOUT).text:
        assert asked.is_alive()
    code = running.stop()
    asked.join()
    assert code == 0
    assert answers[0].status_code == 200
    assert answers[0].json()["seconds"] == 30.0
    assert list((tmp_path / "tmp").iterdir()) == []
