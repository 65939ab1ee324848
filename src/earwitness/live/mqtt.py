"""Reports over MQTT, and sensors in Home Assistant by its MQTT discovery."""

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from earwitness import __version__
from earwitness.errors import ConfigError, MissingDependencyError, one_line, pip_install
from earwitness.live.filters import Wanted
from earwitness.live.sinks import LiveRecord

PASSWORD_VARIABLE = "EARWITNESS_MQTT_PASSWORD"
_WAITING = 100
_CONNECT_S = 10.0
_DISCOVERY = "homeassistant"


class Mqtt:
    """Publishes each report as JSON below a topic; at most 100 wait while the broker is away.

    TOPIC/caption, TOPIC/start and TOPIC/end hold the reports, TOPIC/status "online" or "offline"
    (retained, and published by the broker if the connection is lost). With `home_assistant` there
    are sensors of the last caption and the last event, and for each of the `wanted` sounds a binary
    one with the state TOPIC/sound/NAME: ON or OFF.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        wanted: Sequence[Wanted] = (),
        home_assistant: bool = False,
    ) -> None:
        """Connects. Raises ConfigError: not an address, or the broker refuses."""
        client = _paho()
        host, port, secure, user, password, topic = _parts(url)
        self._topic, self._wanted, self._say = topic, wanted, say
        self._home_assistant, self._ready, self.lost = home_assistant, False, 0
        self._client = client.Client(client.CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(_WAITING)
        self._client.will_set(f"{topic}/status", "offline", qos=1, retain=True)
        if user:
            self._client.username_pw_set(user, password)
        if secure:
            self._client.tls_set()
        self._client.on_connect, self._client.on_disconnect = self._on, self._off
        self._client.reconnect_delay_set(1, 60)
        self._client.connect_timeout = _CONNECT_S
        self._refusal = ""
        self._connect(host, port)

    def add(self, record: LiveRecord) -> None:
        """Publishes or queues the record, and updates the states of the requested sounds."""
        self._publish(record["type"], json.dumps(record, ensure_ascii=False))
        for one in self._wanted if record["type"] in ("start", "end") else ():
            if record["event"] in one.names:
                state = "ON" if record["type"] == "start" else "OFF"
                self._publish(f"sound/{_slug(one.phrase)}", state, retain=True)

    def close(self) -> None:
        """Publishes that nobody is listening anymore."""
        self._publish("status", "offline", retain=True).wait_for_publish(5.0)
        self._ready = False
        self._client.disconnect()
        self._client.loop_stop()
        if self.lost:
            self._say(f"--mqtt: {self.lost} reports were lost")

    def _connect(self, host: str, port: int) -> None:
        from threading import Event

        self._answered = Event()
        try:
            self._client.connect(host, port, keepalive=30)
        except (OSError, ValueError) as error:
            reason = one_line(getattr(error, "strerror", None) or error)
            raise ConfigError(f"--mqtt: {host} port {port} does not answer ({reason})") from None
        self._client.loop_start()
        if not self._answered.wait(_CONNECT_S) or self._refusal:
            self._client.loop_stop()
            reason = self._refusal or f"no answer within {_CONNECT_S:g} s"
            raise ConfigError(f"--mqtt: {host} port {port} refuses the connection ({reason})")

    def _on(self, _c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
        """On every connection, the first and later ones."""
        self._refusal = str(reason) if reason.is_failure else ""
        if not self._refusal:
            if self._answered.is_set():
                self._say("--mqtt: connected again")
            self._ready = True
            self._publish("status", "online", retain=True)
            for topic, sensor in self._sensors() if self._home_assistant else ():
                self._client.publish(topic, json.dumps(sensor), qos=1, retain=True)
        self._answered.set()

    def _off(self, _c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
        if self._ready:
            self._ready = False
            self._say(f"--mqtt: the connection is lost ({reason}); trying again")

    def _publish(self, name: str, payload: str, retain: bool = False) -> Any:
        sent = self._client.publish(f"{self._topic}/{name}", payload, qos=1, retain=retain)
        self.lost += sent.rc == 15  # MQTT_ERR_QUEUE_SIZE
        return sent

    def _sensors(self) -> list[tuple[str, dict[str, Any]]]:
        """Home Assistant's discovery messages: topic and sensor."""
        node = _slug(self._topic)
        shared = {
            "availability_topic": f"{self._topic}/status",
            "device": {"identifiers": [node], "name": self._topic, "sw_version": __version__},
            "origin": {"name": "earwitness", "sw_version": __version__},
        }
        found: list[tuple[str, dict[str, Any]]] = []
        for kind, key, name in (("caption", "caption", "Caption"), ("start", "event", "Event")):
            sensor = {
                "name": name,
                "unique_id": f"{node}_{kind}",
                "state_topic": f"{self._topic}/{kind}",
                "value_template": f"{{{{ value_json.{key} }}}}",
                "json_attributes_topic": f"{self._topic}/{kind}",
                "icon": "mdi:ear-hearing",
            }
            found.append((f"{_DISCOVERY}/sensor/{node}/{kind}/config", {**sensor, **shared}))
        for one in self._wanted:
            slug = _slug(one.phrase)
            sensor = {
                "name": one.phrase.capitalize(),
                "unique_id": f"{node}_{slug}",
                "state_topic": f"{self._topic}/sound/{slug}",
                "device_class": "sound",
            }
            found.append((f"{_DISCOVERY}/binary_sensor/{node}/{slug}/config", {**sensor, **shared}))
        return found


def _parts(url: str) -> tuple[str, int, bool, str, str | None, str]:
    """Host, port, whether by TLS, user, password and topic of mqtt://user@host:1883/topic."""
    expected = "expected mqtt://[user[:password]@]host[:port][/topic], or mqtts://"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    topic = parts.path.strip("/") or "earwitness"
    wrong = parts.fragment or parts.query or set("#+\0") & set(topic)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or wrong:
        raise ConfigError(f"--mqtt {_without_password(url)}: {expected}")
    secure = parts.scheme == "mqtts"
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD_VARIABLE)
    user = unquote(parts.username or "")
    return parts.hostname, port or (8883 if secure else 1883), secure, user, password, topic


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _paho() -> Any:
    try:
        import paho.mqtt.client as client
    except ModuleNotFoundError:
        raise MissingDependencyError(
            f"--mqtt needs the package paho-mqtt: {pip_install('mqtt')}"
        ) from None
    return client
