"""`/v1/audio/stream` with a real WebSocket client: what goes in, what comes out, and the limits."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

client = pytest.importorskip("websockets.sync.client", reason="needs websockets")
from serving import in_thread  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from earwitness import Captioner  # noqa: E402
from earwitness.serve.settings import Settings  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16000
SETTINGS = Settings(demo=False, max_seconds=30.0, max_bytes=3_000_000, max_streams=2)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load("pocket-lamb")


@pytest.fixture(scope="module")
def service(captioner) -> Iterator[str]:
    with in_thread(captioner, SETTINGS) as url:
        yield url


@pytest.fixture(scope="module")
def clock() -> np.ndarray:
    """1 s of silence, 6 s of a clock, 2 s of silence."""
    sound, _ = soundfile.read(EXAMPLES / "clock.flac", dtype="float32")
    nothing = np.zeros(2 * RATE, np.float32)
    return np.concatenate([nothing[:RATE], sound[: 6 * RATE], nothing])


@contextmanager
def connected(url: str, query: str = "", **more: object) -> Iterator[object]:
    address = url.replace("http", "ws") + "/v1/audio/stream" + query
    with client.connect(address, open_timeout=280, ping_interval=None, **more) as socket:
        assert json.loads(socket.recv(280)) == {"type": "ready", "model": "pocket-lamb"}
        yield socket


def rest(socket: object) -> list[dict]:
    """Every message up to the end of the connection."""
    found = []
    with suppress(ConnectionClosed):
        while True:
            found.append(json.loads(socket.recv(280)))
    return found


def told(url: str, query: str, messages: list[bytes]) -> list[dict]:
    with connected(url, query) as socket:
        for message in messages:
            socket.send(message)
        socket.send("end")
        return rest(socket)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def container(sound: np.ndarray, kind: str, codec: str) -> bytes:
    import av

    target = io.BytesIO()
    with av.open(target, "w", format=kind) as file:
        stream = file.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (sound * 32767).astype("<i2")[None], format="s16", layout="mono"
        )
        frame.sample_rate = RATE
        for one in av.AudioResampler("s16", "mono", 48000).resample(frame):
            file.mux(stream.encode(one))
        file.mux(stream.encode(None))
    return target.getvalue()


def opus_packets(sound: np.ndarray) -> list[bytes]:
    import av

    with av.open(io.BytesIO(container(sound, "ogg", "libopus"))) as file:
        return [bytes(packet) for packet in file.demux(audio=0) if packet.size]


def test_samples_give_captions_and_events_with_times_then_done(service, clock) -> None:
    data = (clock * 32767).astype("<i2").tobytes()
    *records, done = told(service, "", pieces(data, 3200))
    assert done == {"type": "done", "seconds": pytest.approx(9.0, abs=0.01)}
    (caption,) = [one for one in records if one["type"] == "caption"]
    assert "clock" in caption["caption"]
    assert (caption["start"], caption["end"]) == pytest.approx((1, 7), abs=0.4)
    starts = [one["event"] for one in records if one["type"] == "start"]
    ends = [one["event"] for one in records if one["type"] == "end"]
    assert "Tick-tock" in starts
    assert sorted(starts) == sorted(ends)


@pytest.mark.parametrize("kind", ["ogg", "webm", "opus", "f32le"])
def test_opus_and_floats_say_the_same_as_samples(service, clock, kind: str) -> None:
    if kind == "opus":
        messages = opus_packets(clock)
    elif kind == "f32le":
        messages = pieces(clock.astype("<f4").tobytes(), 4001)
    else:
        messages = pieces(container(clock, kind, "libopus"), 700)
    query = f"?format={kind}" if kind in ("opus", "f32le") else ""
    *records, done = told(service, f"{query or '?'}&only=captions", messages)
    assert done["seconds"] == pytest.approx(9.0, abs=0.1)
    (caption,) = records
    assert "clock" in caption["caption"]


def test_filter_of_sounds_holds_for_streams(service, clock) -> None:
    data = (clock * 32767).astype("<i2").tobytes()
    query = "?on=clock%20ticking&only=events&cool_down=60"
    records = told(service, query, pieces(data, 32000))
    assert [one["type"] for one in records] == ["start", "end", "done"]
    assert records[0]["event"] == "Tick-tock"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?format=mp7", "format=mp7: input should be"),
        ("?rate=1", "rate=1: input should be greater than or equal to 8000"),
        ("?tempo=1", "unknown option 'tempo'; expected above, channels"),
        ("?on=quasar", "the model knows no sound 'quasar'"),
    ],
)
def test_query_that_makes_no_sense_is_one_sentence(service, query: str, sentence: str) -> None:
    address = service.replace("http", "ws") + "/v1/audio/stream" + query
    with client.connect(address, open_timeout=280) as socket:
        (record,) = [one for one in rest(socket) if one["type"] != "ready"]
    assert record["type"] == "error"
    assert sentence in record["error"]["message"]


def test_sound_that_is_none_too_long_or_too_large_ends_the_stream(service) -> None:
    for query, messages, sentence in [
        ("?format=opus", [b"\xff" * 2000], "is not an Opus packet"),
        ("", [b"OggS" + bytes(5000)], "is not a sound"),
        ("", [bytes(64000)] * 16, "the stream is longer than 30 s, the limit"),
        ("?rate=96000", [bytes(500_000)] * 7, "expected at most 3000000 bytes"),
    ]:
        with connected(service, query) as socket:
            with suppress(ConnectionClosed):
                for message in messages:
                    socket.send(message)
                socket.send("end")
            (record,) = rest(socket)
            assert sentence in record["error"]["message"]
    with connected(service) as socket:
        socket.send("hello")
        (record,) = rest(socket)
    assert "the text message 'hello'; expected binary" in record["error"]["message"]


def test_too_large_a_message_closes_the_connection(service) -> None:
    with connected(service) as socket:
        # The head of a message of 2 MiB alone: with the rest under way, a reset could come first.
        socket.socket.sendall(b"\x82\xff" + (1 << 21).to_bytes(8, "big") + bytes(4))
        rest(socket)
        assert socket.close_code == 1009


def test_streams_have_a_cap_and_free_their_place(service) -> None:
    with connected(service), connected(service):
        with pytest.raises(InvalidStatus) as refused:
            client.connect(service.replace("http", "ws") + "/v1/audio/stream", open_timeout=280)
        assert refused.value.response.status_code == 429
        assert b"2 streams are open, the limit" in refused.value.response.body
        assert httpx.get(f"{service}/health").status_code == 200
    for _ in range(200):
        metrics = httpx.get(f"{service}/metrics").text
        if "earwitness_requests_in_flight 0.0" in metrics or "in_flight 0.0" in metrics:
            break
        time.sleep(0.05)
    with connected(service) as socket:
        socket.send("end")
        assert rest(socket)[-1]["type"] in ("done", "error")


def test_pages_of_other_sites_and_unknown_hosts_are_refused(service) -> None:
    address = service.replace("http", "ws") + "/v1/audio/stream"
    with pytest.raises(InvalidStatus) as refused:
        client.connect(address, origin="https://evil.example", open_timeout=280)
    assert refused.value.response.status_code == 403
    with connected(service, origin="http://localhost:3000"):
        pass
    with pytest.raises(InvalidStatus) as other:
        client.connect(service.replace("http", "ws") + "/v1/else", open_timeout=280)
    assert other.value.response.status_code == 404


def test_silent_client_is_told_and_keys_are_asked_for(captioner) -> None:
    settings = Settings(demo=False, api_keys=("sesame",), timeout_seconds=1.0)
    with in_thread(captioner, settings) as url:
        address = url.replace("http", "ws") + "/v1/audio/stream"
        for more in ({}, {"additional_headers": {"Authorization": "Bearer wrong"}}):
            with pytest.raises(InvalidStatus) as refused:
                client.connect(address, open_timeout=280, **more)
            assert refused.value.response.status_code == 401
        with connected(url, subprotocols=["earwitness", "key.sesame"]) as socket:
            assert socket.subprotocol == "earwitness"
            (record,) = rest(socket)
        assert record["error"]["message"] == "the stream sent nothing for 1 s"
        header = {"Authorization": "Bearer sesame"}
        with connected(url, additional_headers=header):
            pass
