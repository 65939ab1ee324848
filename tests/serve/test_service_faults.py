"""What clients get wrong, by mistake or on purpose, and what the service does about it."""

import asyncio
import errno
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from builders import noise, tiny_captioner
from muxing import Track, mux
from serving import Process, in_thread, noise_silence_noise, sound, wav

from earwitness.captioning.options import CaptionOptions
from earwitness.config import validate
from earwitness.errors import ConfigError
from earwitness.serve.brake import TRIES, WAIT_SECONDS, Brake
from earwitness.serve.connections import Complaints
from earwitness.serve.hosts import is_allowed
from earwitness.serve.settings import Settings
from earwitness.system.captioner import TorchCaptioner

TIMEOUT = 120
QUIET = {"demo": False}
CAPTIONS = "/v1/audio/captions"
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def captioner() -> TorchCaptioner:
    return tiny_captioner()


@pytest.fixture(scope="module")
def url(captioner: TorchCaptioner) -> Iterator[str]:
    with in_thread(captioner, Settings(**QUIET)) as running:
        yield running


def post(url: str, path: str = CAPTIONS, contents: bytes = b"", **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{url}{path}",
        files={"file": ("a.wav", contents or wav())},
        data=fields,
        timeout=TIMEOUT,
    )


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"sample": "true", "seed": str(2**64)},
        {"sample": "true", "seed": "9" * 40},
        {"sample": "true", "temperature": "1e-300"},
        {"sample": "true", "temperature": "1e300"},
        {"sample": "true", "temperature": "nan"},
        {"sample": "true", "top_p": "nan"},
        {"guide_strength": "1e300"},
        {"guide_strength": "inf"},
        {"guide_strength": "nan"},
        {"silence": "nan"},
        {"silence": "-inf"},
        {"min_score": "nan"},
        {"rerank": "consensus", "rerank_weight": "nan"},
        {"window": "nan"},
        {"window": "1e-300"},
        {"hop": "1e-300"},
        {"whole": "inf"},
    ],
)
def test_value_out_of_range_is_a_422_that_names_the_field(url: str, fields: dict) -> None:
    answer = post(url, **fields)
    assert answer.status_code == 422, answer.text
    assert list(fields)[-1] in message(answer)
    assert len(message(answer)) <= 400


@pytest.mark.parametrize(
    "fields",
    [
        {"sample": "true", "seed": str(2**63 - 1)},
        {"sample": "true", "temperature": "0.01"},
        {"sample": "true", "temperature": "100"},
        {"guide_strength": "1000"},
        {"silence": "-1e300"},
    ],
)
def test_value_on_the_edge_of_its_range_is_captioned(url: str, fields: dict) -> None:
    answer = post(url, **fields)
    assert (answer.status_code, bool(answer.json().get("caption"))) == (200, True), answer.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 2**64), ("temperature", 1e-300), ("guide_strength", 1e300), ("silence", np.nan)],
)
def test_command_line_has_the_same_ranges(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        validate(CaptionOptions, {name: value}, "the options")


def test_low_temperature_of_the_transcriptions_is_a_422(url: str) -> None:
    answer = post(url, TRANSCRIPTIONS, model="whisper-1", temperature="1e-300")
    assert (answer.status_code, "temperature" in message(answer)) == (422, True)


@pytest.mark.parametrize("time", ["9" * 400, "99999999999999:00:00", "-1:00:00"])
def test_giant_time_in_subtitles_is_a_422(url: str, time: str) -> None:
    speech = f"WEBVTT\n\n{time}.000 --> {time}.500\nHello.\n"
    answer = httpx.post(
        f"{url}{CAPTIONS}",
        files={"file": ("a.wav", wav()), "merge": ("a.vtt", speech.encode())},
        data={"response_format": "vtt"},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("path", [CAPTIONS, TRANSCRIPTIONS])
@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "punycode", "hex", "utf-16"])
def test_charset_that_makes_surrogate_names_is_a_422(url: str, path: str, charset: str) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="\\\\ud800.wav"'
    body = f"--x\r\n{head}\r\n\r\n".encode() + wav() + b"\r\n--x--\r\n"
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = httpx.post(
        f"{url}{path}", content=body, headers={"Content-Type": kind}, timeout=TIMEOUT
    )
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("path", [CAPTIONS, TRANSCRIPTIONS])
def test_file_without_a_name_gets_one_sentence(url: str, path: str) -> None:
    answer = httpx.post(
        f"{url}{path}",
        files={"file": (None, b"RIFF"), "model": (None, b"whisper-1")},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 422
    assert message(answer) == (
        "the field 'file' has no file name; expected a file, as curl -F file=@dog.wav sends it"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"timestamp_granularities[]": "segmnt"}, "'segmnt'; expected 'segment'"),
        ({"timestamp_granularities": "wrod"}, "'wrod'; expected 'segment'"),
        ({"timestamp_granularity[]": "segment"}, "did you mean 'timestamp_granularities'"),
        ({"timestamp_granularites[]": "word"}, "did you mean 'timestamp_granularities'"),
    ],
)
def test_misspelled_granularities_are_refused(url: str, fields: dict, sentence: str) -> None:
    answer = post(url, TRANSCRIPTIONS, model="whisper-1", **fields)
    assert (answer.status_code, sentence in message(answer)) == (422, True), answer.text


def test_fields_that_the_service_does_not_use_are_let_through(url: str) -> None:
    fields = {"timestamp_granularities[]": "segment", "language": "en", "chunking_strategy": "auto"}
    assert post(url, TRANSCRIPTIONS, model="whisper-1", user="me", **fields).status_code == 200


@pytest.mark.parametrize(
    "samples", [noise_silence_noise(), np.zeros(16000, np.float32)], ids=["sounds", "silence"]
)
def test_deltas_joined_are_the_final_text(url: str, samples: np.ndarray) -> None:
    fields = {"model": "whisper-1", "stream": "true"}
    answer = post(url, TRANSCRIPTIONS, sound(samples), **fields)
    events = [json.loads(data) for data in re.findall(r"data: (\{.*\})\n\n", answer.text)]
    *deltas, done = events
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]
    whole = post(url, TRANSCRIPTIONS, sound(samples), model="whisper-1", response_format="srt")
    assert (done["text"] == "no distinct sound") == (whole.text == "")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_health_routes_answer_head(url: str, path: str) -> None:
    answer = httpx.head(f"{url}{path}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_schema_names_every_status(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    expected = {"200", "400", "401", "404", "408", "413", "415", "422", "429", "500", "503"}
    for path in (CAPTIONS, TRANSCRIPTIONS):
        answers = paths[path]["post"]["responses"]
        assert set(answers) == expected
        assert answers["422"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/Problem"
        }
    assert "503" in paths["/ready"]["get"]["responses"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 400), ("localhost.evil.example:80", 400), ("localhost:1", 200)],
)
def test_host_that_is_not_the_services_is_refused(url: str, host: str, status: int) -> None:
    for path in ("/health", "/v1/models", "/openapi.json"):
        answer = httpx.get(f"{url}{path}", headers={"Host": host})
        assert answer.status_code == status
    if status == 400:
        assert "expected localhost, 127.0.0.1, ::1" in message(answer)


def test_names_that_are_allowed_and_no_others() -> None:
    settings = Settings(allowed_hosts=("a.example", "*.b.example", "::1"))
    for host in ("a.example", "A.EXAMPLE:80", "a.example.", "x.b.example", "[::1]:8000"):
        assert is_allowed(host, settings), host
    for host in ("b.example", "xb.example", "a.example:x", "u@a.example", "10.0.0.1", "[::1", "a/"):
        assert not is_allowed(host, settings), host
    assert is_allowed("anything", Settings(allowed_hosts=("*",)))
    assert is_allowed("10.0.0.1:80", Settings(any_address=True))
    assert not is_allowed("evil.example", Settings(any_address=True))


def connected(url: str, head: bytes = b"") -> socket.socket:
    """A connection on which `head` was sent."""
    parts = httpx.URL(url)
    opened = socket.create_connection((parts.host, parts.port or 80), timeout=TIMEOUT)
    opened.sendall(head)
    return opened


def is_closed(opened: socket.socket) -> bool:
    """Whether the service has ended the connection, with what it had not read or without."""
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_connection_without_a_whole_head_is_closed(captioner: TorchCaptioner, head: bytes) -> None:
    limits = Settings(timeout_seconds=0.5, **QUIET)
    with in_thread(captioner, limits, wait=False) as url, connected(url, head) as opened:
        opened.settimeout(30)
        assert opened.recv(100) == b""


def test_second_head_on_a_connection_has_the_same_limit(captioner: TorchCaptioner) -> None:
    with in_thread(captioner, Settings(timeout_seconds=1.0, **QUIET), wait=False) as url:
        request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with connected(url, request) as opened:
            opened.settimeout(30)
            answer = opened.recv(1000)
            while not answer.endswith(b'{"status":"ok"}'):
                more = opened.recv(1000)
                assert more
                answer += more
            assert answer.startswith(b"HTTP/1.1 200")
            opened.sendall(request[:20])
            assert opened.recv(1000) == b""


def test_connections_are_capped_and_idle_ones_make_room(captioner: TorchCaptioner) -> None:
    with in_thread(captioner, Settings(max_connections=4, **QUIET), wait=False) as url:
        idle = [connected(url, b"GET / HTT") for _ in range(12)]
        assert httpx.get(f"{url}/health", timeout=TIMEOUT).status_code == 200
        assert all(is_closed(one) for one in idle[:8])
        for one in idle:
            one.close()


def test_lack_of_files_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    handler = Complaints()
    for _ in range(3):
        handler(loop, {"message": "accept", "exception": OSError(errno.EMFILE, "Too many files")})
    assert len(caplog.records) == 1
    handler(loop, {"message": "something else"})
    assert caplog.records[-1].name == "asyncio"
    loop.close()


@pytest.mark.parametrize("path", [CAPTIONS, TRANSCRIPTIONS])
def test_stream_ends_when_its_time_is_over(
    captioner: TorchCaptioner, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    go = threading.Event()
    with in_thread(captioner, Settings(timeout_seconds=1.0, max_requests=1, **QUIET)) as url:
        run = captioner.caption_waveforms
        with monkeypatch.context() as patched:
            patched.setattr(
                captioner, "caption_waveforms", lambda *given: (go.wait(TIMEOUT), run(*given))[1]
            )
            timer = threading.Timer(20, go.set)
            timer.start()
            started = time.monotonic()
            answer = post(url, path, model="whisper-1", stream="true")
            assert time.monotonic() - started < 15
            go.set()
            timer.cancel()
        assert "the captions took longer than the limit of 1 s" in answer.text


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(captioner: TorchCaptioner) -> None:
    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{url}/v1/models", headers=headers, timeout=TIMEOUT).status_code

    with in_thread(captioner, Settings(api_keys=("right",), **QUIET), wait=False) as url:
        assert {status("wrong") for _ in range(TRIES - 1)} == {401}
        assert status("right") == 200
        assert {status("wrong") for _ in range(TRIES)} == {401}
        assert status("wrong") == status("right") == 429
        assert httpx.get(f"{url}/health").status_code == 200


def test_brake_is_let_go_is_per_address_and_forgets_the_oldest() -> None:
    now = 0.0
    brake = Brake(lambda: now)

    def client(address: str) -> dict[str, Any]:
        return {"client": (address, 1)}

    for _ in range(TRIES):
        brake.wrong(client("2001:db8::1"))
    assert brake.wait(client("2001:db8::2")) == WAIT_SECONDS
    assert brake.wait(client("2001:db8:0:1::1")) == 0
    now = WAIT_SECONDS + 1
    assert brake.wait(client("2001:db8::1")) == 0
    for _ in range(TRIES):
        brake.wrong(client("10.0.0.1"))
    for number in range(20_000):
        brake.wrong(client(f"host{number}"))
    assert brake.wait(client("10.0.0.1")) == 0
    assert len(brake._wrong) == 10_000


def broken_off(host: str, port: int) -> None:
    """An upload to the page whose client goes away in the middle."""
    with socket.create_connection((host, port)) as connection:
        connection.sendall(
            b"POST /demo/gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 500000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            b'Content-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
            + bytes(50_000)
        )
        time.sleep(0.5)


def test_uploads_of_the_page_obey_the_limits_and_leave_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the web page needs gradio")

    def stalled() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        yield bytes(100_000)
        time.sleep(2)
        yield b"\r\n--x--\r\n"

    # In a process of its own: Gradio's event loops outlive the application.
    running = Process(tmp_path, "--model", "pocket-lamb", "--timeout", "1", "--max-mb", "1")
    try:
        upload = f"{running.url}/demo/gradio_api/upload"
        large = [("files", (f"{n}.wav", bytes(600_000))) for n in range(2)]
        assert httpx.post(upload, files=large, timeout=TIMEOUT).status_code == 413
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        late = httpx.post(upload, content=stalled(), headers=kind, timeout=TIMEOUT)
        assert (late.status_code, message(late)) == (
            408,
            "the upload took longer than the limit of 1 s",
        )
        assert running.files() == []
        where = urlsplit(running.url)
        broken_off(where.hostname, where.port)
        small = httpx.post(upload, files={"files": ("a.wav", wav())}, timeout=TIMEOUT)
        assert (small.status_code, Path(small.json()[0]).name) == (200, "a.wav")
        assert running.files() == small.json()
    finally:
        assert running.stop() == 0
    assert running.files() == []
    assert "Traceback" not in running.log.read_text()


def test_odd_sounds_are_captioned_with_a_note(url: str, tmp_path: Path) -> None:
    tracks = [Track(sounding, 16000, language="eng") for sounding in (noise(2.0), noise(1.0))]
    film = mux(tmp_path / "film.mkv", *tracks).read_bytes()
    answer = post(url, contents=film)
    note = "'a.wav': track 1 of 2 audio tracks (1 eng, 2 eng)"
    assert answer.json()["notes"] == [note]
    for path in (CAPTIONS, TRANSCRIPTIONS):
        for kind in ("json", "text", "srt", "vtt"):
            noted = post(url, path, film, response_format=kind, model="whisper-1")
            assert noted.headers["X-Notes"] == note
    second = post(url, contents=film, track="2")
    assert second.json()["seconds"] == pytest.approx(1.0, abs=0.05)
    assert "notes" not in second.json()
    assert post(url, contents=film, track="3").status_code == 415
    unfinished = bytearray(wav(2.0))
    unfinished[40:44] = bytes(4)
    told = post(url, contents=bytes(unfinished)).json()
    assert told["seconds"] == 2.0
    assert told["notes"] == ["'a.wav': its header states 0.00 s; all 2.00 s are read"]
