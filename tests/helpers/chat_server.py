"""A stand-in for an OpenAI-compatible server that takes audio: it measures what it is sent."""

import base64
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import numpy as np
import soundfile


@dataclass
class ChatServer:
    """Captions name the loudest frequency; `problems` are statuses to answer with first."""

    key: str | None = None
    probabilities: bool = True
    parts: tuple[str, ...] = ("input_audio", "audio_url")
    problems: list[int] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    lock: Lock = field(default_factory=Lock)

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.requests.append(body)
            if self.problems:
                return self.problems.pop(0), {"error": {"message": "not now"}}
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, {"error": {"message": "Incorrect API key provided"}}
        if body["model"] != "ears":
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        part = body["messages"][0]["content"][0]
        if part["type"] not in self.parts:
            return 400, {"error": {"message": f"Unknown part type {part['type']}"}}
        sound = part[part["type"]]
        data = sound["data"] if "data" in sound else sound["url"].partition("base64,")[2]
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        spectrum = np.abs(np.fft.rfft(samples))
        text = f"a tone of {round(spectrum.argmax() * rate / len(samples))} Hz"
        choices = [self.choice(n, text, 0.5 + 0.1 * n) for n in range(body["n"])]
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "choices": choices} | {
            "model": "ears"
        }

    def choice(self, number: int, text: str, probability: float) -> dict[str, Any]:
        tokens = [
            {"token": word, "logprob": math.log(probability), "top_logprobs": []}
            for word in text.split()
        ]
        return {
            "index": number,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": tokens} if self.probabilities else None,
        }


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """The server at a free port of this computer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = server.answer(body, self.headers.get("Authorization"))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
