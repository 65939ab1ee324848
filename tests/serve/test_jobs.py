"""Jobs: on disk, through restarts, with a webhook that is signed, tried again and recorded."""

import hmac
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from builders import noise, tiny_captioner, tiny_exported_folder
from serving import Process, in_thread, sound, wav

from earwitness.captioning.subtitles import parse
from earwitness.errors import ConfigError
from earwitness.serve.jobs import Jobs
from earwitness.serve.settings import Settings
from earwitness.serve.working import SIGNATURE, check_webhook
from earwitness.system.captioner import TorchCaptioner

TIMEOUT = 120
SECRET = "a key of the tests"


@pytest.fixture(scope="module")
def captioner() -> TorchCaptioner:
    return tiny_captioner()


def settings(folder: Path, **fields: object) -> Settings:
    return Settings(demo=False, jobs=folder, webhook_waits=(0.05, 0.05, 0.05), **fields)


def post(url: str, contents: bytes, **fields: str) -> httpx.Response:
    files = {"file": ("night.wav", contents)}
    return httpx.post(f"{url}/v1/jobs", files=files, data=fields, timeout=TIMEOUT)


def ended(url: str, job: str, headers: dict[str, str] | None = None) -> dict:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        told = httpx.get(f"{url}/v1/jobs/{job}", timeout=TIMEOUT, headers=headers).json()
        hook = told.get("webhook")
        told_of = hook is None or hook["delivered"] or hook["tries"] == 4
        if told["status"] in ("done", "failed") and told_of:
            return told
        time.sleep(0.1)
    raise AssertionError("the job does not end")


def test_job_has_the_captions_of_a_request_in_every_format(
    captioner: TorchCaptioner, tmp_path: Path
) -> None:
    contents = sound(np.concatenate([noise(20, 1), np.zeros(160_000, np.float32), noise(9, 2)]))
    with in_thread(captioner, settings(tmp_path / "jobs")) as url:
        answer = post(url, contents, n_best="2")
        assert answer.status_code == 202
        job = answer.json()["id"]
        assert answer.headers["Location"] == f"/v1/jobs/{job}"
        told = ended(url, job)
        assert (told["status"], told["seconds"], told["file"]) == ("done", 39.0, "night.wav")
        same = httpx.post(
            f"{url}/v1/audio/captions",
            files={"file": ("night.wav", contents)},
            data={"timed": "true", "n_best": "2"},
            timeout=TIMEOUT,
        )
        result = f"{url}/v1/jobs/{job}/result"
        assert httpx.get(result).json() == same.json()
        subtitles = httpx.get(result, params={"response_format": "srt"}).content
        assert 1 <= len(parse(subtitles.decode(), "x").cues) <= 3
        assert [one["id"] for one in httpx.get(f"{url}/v1/jobs").json()["data"]] == [job]
        assert not list((tmp_path / "jobs").glob("*.sound"))
        assert httpx.delete(f"{url}/v1/jobs/{job}").status_code == 204
        assert httpx.get(f"{url}/v1/jobs/{job}").status_code == 404


def test_job_of_a_broken_file_fails_with_the_reason(
    captioner: TorchCaptioner, tmp_path: Path
) -> None:
    with in_thread(captioner, settings(tmp_path)) as url:
        for contents, reason in ((b"hello", "is not a sound"), (wav(4.0)[:60_000], "is cut off")):
            job = post(url, contents).json()["id"]
            told = ended(url, job)
            assert told["status"] == "failed"
            assert "night.wav" in told["error"]
            assert reason in told["error"]
            answer = httpx.get(f"{url}/v1/jobs/{job}/result")
            assert (answer.status_code, reason in answer.text) == (409, True)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"beam": "0"}, "the field 'beam'"),
        ({"beem": "2"}, "did you mean 'beam'?"),
        ({"window": "2000"}, "this service captions at most"),
        ({"webhook": "http://127.0.0.1/"}, "calls no webhooks"),
    ],
)
def test_bad_field_of_a_job_is_refused_at_once(
    captioner: TorchCaptioner, tmp_path: Path, fields: dict, sentence: str
) -> None:
    with in_thread(captioner, settings(tmp_path), wait=True) as url:
        answer = post(url, wav(), **fields)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]["message"]


def test_service_without_a_folder_takes_no_jobs(captioner: TorchCaptioner) -> None:
    with in_thread(captioner, Settings(demo=False)) as url:
        answer = post(url, wav())
    assert (answer.status_code, "--jobs FOLDER" in answer.text) == (404, True)


def test_jobs_are_seen_by_their_own_key_alone(captioner: TorchCaptioner, tmp_path: Path) -> None:
    with in_thread(captioner, settings(tmp_path, api_keys=("one", "two"))) as url:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        files = {"file": ("a.wav", wav())}
        job = httpx.post(f"{url}/v1/jobs", files=files, headers=mine, timeout=TIMEOUT).json()["id"]
        assert ended(url, job, mine)["status"] == "done"
        assert httpx.get(f"{url}/v1/jobs/{job}", headers=other).status_code == 404
        assert httpx.delete(f"{url}/v1/jobs/{job}", headers=other).status_code == 404
        assert httpx.get(f"{url}/v1/jobs", headers=other).json()["data"] == []


def test_job_survives_a_killed_service(tmp_path: Path) -> None:
    model = str(tiny_exported_folder(tmp_path / "tiny"))
    arguments = ("--model", model, "--no-demo", "--jobs", str(tmp_path / "jobs"))
    first = Process(tmp_path / "first", *arguments)
    long = post(first.url, sound(noise(600.0))).json()["id"]
    waiting = post(first.url, wav()).json()["id"]
    first.process.kill()
    first.process.wait()
    second = Process(tmp_path / "second", *arguments)
    try:
        for job, seconds in ((long, 600.0), (waiting, 1.0)):
            told = ended(second.url, job)
            assert (told["status"], told["seconds"]) == ("done", seconds)
    finally:
        second.stop()
    assert not list((tmp_path / "jobs").glob("*.lock"))


class Hook:
    """A server that answers with one status after the other, and keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        left, self.got = list(statuses), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.got.append((handler.headers[SIGNATURE], body))
                handler.send_response(left.pop(0) if len(left) > 1 else left[0])
                handler.send_header("Location", "http://127.0.0.1:9/elsewhere")
                handler.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.url = f"http://127.0.0.1:{self.server.server_port}/done"

    def __enter__(self) -> "Hook":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hooked(captioner: TorchCaptioner, tmp_path: Path) -> Iterator[str]:
    own = {"webhook_secret": SECRET, "webhook_hosts": ("127.0.0.1",)}
    with in_thread(captioner, settings(tmp_path, **own)) as url:
        yield url


def test_webhook_is_signed_and_told_of_the_end(hooked: str) -> None:
    with Hook(204) as hook:
        job = post(hooked, wav(), webhook=hook.url).json()["id"]
        told = ended(hooked, job)
        ((header, body),) = hook.got
    assert told["webhook"] == {
        "url": hook.url, "tries": 1, "delivered": True, "answer": "status 204"
    }  # fmt: skip
    stamp, mark = (part.partition("=")[2] for part in header.split(","))
    wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, "sha256").hexdigest()
    assert mark == wanted
    assert abs(int(stamp) - time.time()) < 60
    assert json.loads(body)["id"] == job
    assert json.loads(body)["status"] == "done"


@pytest.mark.parametrize(
    ("statuses", "tries", "delivered", "answer"),
    [((500, 503, 200), 3, True, "status 200"), ((302,), 4, False, "status 302")],
)
def test_webhook_is_tried_three_times_more_and_recorded(
    hooked: str, statuses: tuple[int, ...], tries: int, delivered: bool, answer: str
) -> None:
    with Hook(*statuses) as hook:
        told = ended(hooked, post(hooked, b"broken", webhook=hook.url).json()["id"])
    assert told["status"] == "failed"
    assert len(hook.got) == tries
    assert told["webhook"] == {
        "url": hook.url, "tries": tries, "delivered": delivered, "answer": answer
    }  # fmt: skip


def test_webhook_that_nobody_answers_is_recorded(hooked: str) -> None:
    told = ended(hooked, post(hooked, wav(), webhook="http://127.0.0.1:9/").json()["id"])
    assert told["status"] == "done"
    assert (told["webhook"]["tries"], told["webhook"]["delivered"]) == (4, False)
    assert "refused" in told["webhook"]["answer"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "ftp://hooks.example.org/", "http://user@hooks.example.org/",
        "http://[", "file:///etc/passwd", "//hooks.example.org/", "",
    ],
)  # fmt: skip
def test_webhook_of_an_unknown_host_is_refused(url: str) -> None:
    known = Settings(webhook_secret=SECRET, webhook_hosts=("hooks.example.org",))
    check_webhook("https://hooks.example.org:8443/done?x=1", known)
    with pytest.raises(ConfigError, match=r"the host hooks\.example\.org"):
        check_webhook(url, known)


def test_job_belongs_to_one_process_until_its_lock_ends(tmp_path: Path) -> None:
    one, two = Jobs(tmp_path), Jobs(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
        one.add("", f"{name}.wav", "{}", None, tmp_path / name)
    (first, lock), (second, other) = one.claim(4), two.claim(4)
    assert (first.file, second.file) == ("a.wav", "b.wav")
    assert two.claim(4) is None
    lock.close()
    other.close()
    again, lock = two.claim(4)
    assert again.id == first.id
    two.change(first.id, state="done", ended=time.time() - 8 * 86_400)
    lock.close(remove=True)
    left, fresh = tmp_path / "upload-x", tmp_path / "upload-y"
    for path in (left, fresh):
        path.write_bytes(b"")
    os.utime(left, (0, 0))
    two.tidy(7.0)
    assert [path.name for path in tmp_path.glob("upload-*")] == ["upload-y"]
    assert one.find(first.id) is None
    last, lock = one.claim(4)
    assert last.id == second.id
    lock.close(remove=True)
