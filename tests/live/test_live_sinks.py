"""Where reports go: files that grow, a webhook, a program, a real MQTT broker."""

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from earwitness.captioning.subtitles import parse
from earwitness.errors import ConfigError, DataError
from earwitness.io.webhook import check_address, post
from earwitness.live.command import Command
from earwitness.live.filters import Wanted
from earwitness.live.mqtt import Mqtt
from earwitness.live.sinks import GrowingVtt, JsonLines, Terminal, Worker

START = {"type": "start", "start": 1.5, "event": "Bark", "probability": 0.9, "source": "mic"}
END = {**START, "type": "end", "end": 3.0}
CAPTION = {"type": "caption", "start": 1.0, "end": 2.5, "caption": "A dog barks", "score": 0.5}
TIMED = {**START, "time": "2026-01-02T03:04:05.678+01:00"}


def test_terminal_shows_the_time_of_day_or_of_the_file_and_json_all(capsys) -> None:
    for record in (TIMED, START, END, CAPTION):
        Terminal(False).add(record)
    assert capsys.readouterr().out.splitlines() == [
        "03:04:05  [bark] 0.90",
        "00:00:01.500  [bark] 0.90",
        "00:00:01.500  [bark] over after 1.5 s",
        "00:00:01.000  A dog barks",
    ]
    Terminal(True).add(END)
    assert json.loads(capsys.readouterr().out) == END


def test_json_lines_are_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    for _ in range(2):
        JsonLines(path).add(CAPTION)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [CAPTION] * 2
    with pytest.raises(DataError, match="is a folder; expected a file name"):
        JsonLines(tmp_path)


def test_webvtt_is_valid_after_every_cue_and_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "day.vtt"
    sink = GrowingVtt(path, overwrite=False)
    assert path.read_text() == "WEBVTT\n\n"
    for count, record in enumerate([START, END, CAPTION]):
        sink.add(record)
        assert len(parse(path.read_text()).cues) == count
    cues = parse(path.read_text()).cues
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [
        (1.5, 3.0, "[bark]"),
        (1.5, 2.5, "[dog barks]"),
    ]
    with pytest.raises(DataError, match="exists; choose another --output, or --overwrite"):
        GrowingVtt(path, overwrite=False)
    GrowingVtt(path, overwrite=True)
    assert path.read_text() == "WEBVTT\n\n"


class Hook(BaseHTTPRequestHandler):
    """Answers with the statuses in `answers`, then 204."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def hook(*answers: int) -> Iterator[tuple[str, list]]:
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        server.answers, server.bodies = list(answers), []
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x", server.bodies
        server.shutdown()
        thread.join()


def test_webhook_gets_json_and_is_tried_three_more_times() -> None:
    waits: list[float] = []
    with hook(500, 503, 429) as (url, bodies):
        assert post(url, CAPTION, wait=waits.append) is None
    assert bodies == [("application/json", CAPTION)] * 4
    assert waits == [1, 2, 4]
    with hook(500, 500, 500, 502) as (url, bodies):
        assert post(url, CAPTION, wait=waits.append) == "answered 502 Bad Gateway, tried 4 times"
    with hook(404) as (url, bodies):
        assert post(url, CAPTION, wait=waits.append) == "answered 404 Not Found"
    assert len(bodies) == 1
    assert "did not answer (" in str(post(url, CAPTION, wait=waits.append))


@pytest.mark.parametrize("url", ["ftp://x/y", "example.org", "http://", "https://a:b:c"])
def test_webhook_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as https"):
        check_address(url, "--webhook")


def test_slow_worker_loses_the_oldest_and_says_so() -> None:
    said: list[str] = []
    gate, seen = threading.Event(), []

    def deliver(record: dict) -> str | None:
        gate.wait()
        seen.append(record["start"])
        return "no" if record["start"] == 149 else None

    worker = Worker("--webhook", deliver, said.append)
    for number in range(150):
        worker.add({**START, "start": float(number)})
    gate.set()
    worker.close()
    assert seen[-100:] == [float(number) for number in range(50, 150)]
    assert said[0] == "--webhook is too slow: 100 reports wait, the oldest are lost"
    assert said[1] == "--webhook: no"
    lost = 150 - len(seen) + 1
    assert said[2] == f"--webhook: {lost} reports were lost"


def script(folder: Path, body: str) -> Path:
    path = folder / "take"
    path.write_text(f"#!{sys.executable}\nimport sys, json\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_program_gets_arguments_without_a_shell_and_json(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    body = f"json.dump([sys.argv[1:], json.load(sys.stdin)], open({str(out)!r}, 'w'))"
    path = script(tmp_path, body)
    evil = {**CAPTION, "caption": "$(touch evil); `ls` \"'"}
    command = Command(f"{path} '{{text}} at {{start}}' {{type}} 'a b'")
    assert command.deliver(evil) is None
    arguments, record = json.loads(out.read_text())
    assert arguments == [f"{evil['caption']} at 1.0", "caption", "a b"]
    assert record == evil


def test_program_that_fails_is_said_and_one_that_is_missing_refused(tmp_path: Path) -> None:
    path = script(tmp_path, "sys.exit(3)")
    assert Command(str(path)).deliver(START) == "ended with exit code 3"
    for line, sentence in [
        ("no-such-program-xyz {text}", "no such program"),
        ("echo {colour}", "expected only {type}, {text}"),
        ("echo 'x", "cannot be split into arguments"),
        ("", "no such program"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            Command(line)


MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
NEEDS_BROKER = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto")


@contextlib.contextmanager
def broker(port: int) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([str(MOSQUITTO), "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Subscriber:
    """A client that keeps every message by topic."""

    def __init__(self, port: int) -> None:
        client = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
        self.messages: dict[str, list[str]] = {}
        self._client = client.Client(client.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._keep
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()

    def _keep(self, _c: object, _u: object, message: object) -> None:
        self.messages.setdefault(message.topic, []).append(message.payload.decode())

    def wait(self, topic: str, count: int = 1) -> list[str]:
        for _ in range(400):
            if len(self.messages.get(topic, [])) >= count:
                return self.messages[topic]
            time.sleep(0.05)
        raise AssertionError(f"no {topic}: {self.messages}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@NEEDS_BROKER
def test_reports_and_sensors_reach_an_mqtt_broker_and_survive_its_restart() -> None:
    port, said = free_port(), []
    wanted = [Wanted("dog barking", ("Bark",))]
    with broker(port):
        other = Subscriber(port)
        sink = Mqtt(f"mqtt://127.0.0.1:{port}/house/door", said.append, wanted, True)
        for record in (START, END, CAPTION, {**START, "event": "Rain"}):
            sink.add(record)
        assert json.loads(other.wait("house/door/start")[0]) == START
        assert json.loads(other.wait("house/door/caption")[0]) == CAPTION
        assert other.wait("house/door/sound/dog_barking", 2) == ["ON", "OFF"]
        config = other.wait("homeassistant/binary_sensor/house_door/dog_barking/config")[0]
        sensor = json.loads(config)
        assert sensor["state_topic"] == "house/door/sound/dog_barking"
        assert sensor["availability_topic"] == "house/door/status"
        caption = json.loads(other.wait("homeassistant/sensor/house_door/caption/config")[0])
        assert caption["value_template"] == "{{ value_json.caption }}"
        assert other.wait("house/door/status") == ["online"]
        other.close()
    sink.add(CAPTION)  # waits for the broker
    with broker(port):
        other = Subscriber(port)
        assert json.loads(other.wait("house/door/caption")[0]) == CAPTION
        sink.close()
        assert other.wait("house/door/status", 2)[-1] == "offline"
        other.close()
    assert [line.partition(" (")[0] for line in said] == [
        "--mqtt: the connection is lost",
        "--mqtt: connected again",
    ]


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://u:secret@h/a#b", "mqtt://h:x"])
def test_mqtt_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    with pytest.raises(ConfigError, match="expected mqtt://") as said:
        Mqtt(url, print)
    assert "secret" not in str(said.value)


def test_broker_that_is_not_there_is_named() -> None:
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    port = free_port()
    with pytest.raises(ConfigError, match=f"127.0.0.1 port {port} does not answer"):
        Mqtt(f"mqtt://127.0.0.1:{port}", print)
