"""What the service refuses and when, and the parts it is made of."""

import asyncio
import io
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from builders import noise, tiny_captioner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from serving import in_thread, wav

from earwitness.caption import Caption, Decoding, Precision
from earwitness.captioning.pipeline import SoundResult, settled
from earwitness.captioning.segments import Candidate, Segment, cover, merge
from earwitness.serve import card, picture
from earwitness.serve.batching import Batcher
from earwitness.serve.limits import knows_key
from earwitness.serve.metrics import Metrics
from earwitness.serve.settings import Settings
from earwitness.system.captioner import TorchCaptioner

TIMEOUT = 120
QUIET = {"demo": False}


class Held:
    """The captioner's model made to wait until it is let go."""

    def __init__(self, captioner: TorchCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls = threading.Event(), 0
        run = captioner.caption_waveforms

        def waiting(*arguments: Any) -> list[list[Caption]]:
            self.calls += 1
            self.go.wait(TIMEOUT)
            return run(*arguments)

        monkeypatch.setattr(captioner, "caption_waveforms", waiting)


@pytest.fixture(scope="module")
def captioner() -> TorchCaptioner:
    return tiny_captioner()


@pytest.fixture
def fresh(captioner: TorchCaptioner, monkeypatch: pytest.MonkeyPatch) -> Iterator[TorchCaptioner]:
    yield captioner
    monkeypatch.undo()


def post(url: str, contents: bytes = b"", **headers: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/audio/captions",
        files={"file": ("a.wav", contents or wav())},
        headers=headers,
        timeout=TIMEOUT,
    )


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


def eventually(true: Any) -> None:
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_requests_wait_for_the_warm_up(
    fresh: TorchCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(fresh, monkeypatch)
    with in_thread(fresh, Settings(**QUIET), wait=False) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/ready").status_code == 503
        early = post(url)
        assert (early.status_code, "still loading" in message(early)) == (503, True)
        held.go.set()
        eventually(lambda: httpx.get(f"{url}/ready").status_code == 200)
        assert post(url).status_code == 200


def test_more_requests_than_places_get_429_and_none_is_lost(
    fresh: TorchCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_thread(fresh, Settings(max_requests=3, **QUIET)) as url:
        held = Held(fresh, monkeypatch)
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(post, url) for _ in range(12)]
            eventually(lambda: sum(one.done() for one in asked) == 9)
            held.go.set()
            answers = [one.result() for one in asked]
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200] * 3 + [429] * 9
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert busy.headers["retry-after"] == "1"
        assert "3 requests are waiting" in message(busy)
        assert post(url).status_code == 200


def test_late_captions_get_503_and_free_their_place(
    fresh: TorchCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_thread(fresh, Settings(timeout_seconds=2.0, max_requests=1, **QUIET)) as url:
        held = Held(fresh, monkeypatch)
        late = post(url)
        assert (late.status_code, "longer than the limit of 2 s" in message(late)) == (503, True)
        held.go.set()
        eventually(lambda: post(url).status_code == 200)


def test_stalled_upload_is_given_up(fresh: TorchCaptioner) -> None:
    def stalled() -> Iterator[bytes]:
        yield b"--x\r\n"
        time.sleep(4)
        yield b"--x--\r\n"

    with in_thread(fresh, Settings(timeout_seconds=1.0, **QUIET)) as url:
        answer = httpx.post(
            f"{url}/v1/audio/captions",
            content=stalled(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            timeout=TIMEOUT,
        )
        assert answer.status_code == 408


def test_client_that_hangs_up_leaves_the_queue(
    fresh: TorchCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_thread(fresh, Settings(max_requests=2, **QUIET)) as url:
        held = Held(fresh, monkeypatch)
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{url}/v1/audio/captions", files={"file": ("a.wav", wav())}, timeout=1.0
                )
        eventually(lambda: "in_flight 0.0" in httpx.get(f"{url}/metrics").text)
        held.go.set()
        assert post(url).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("", 401), ("Bearer wrong", 401), ("Basic right", 401), ("bearer right", 200)],
)
def test_key_is_needed_where_keys_are_set(
    fresh: TorchCaptioner, authorization: str, status: int
) -> None:
    with in_thread(fresh, Settings(api_keys=("other", "right"), **QUIET)) as url:
        headers = {"Authorization": authorization} if authorization else {}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == status
        assert post(url, **headers).status_code == status
        assert httpx.get(f"{url}/health").status_code == 200


def test_keys_match_only_themselves_and_stay_out_of_reprs() -> None:
    assert knows_key(("a", "b"), "b")
    assert not knows_key(("a", "b"), "ab")
    assert not knows_key((), "")
    assert "secret" not in repr(Settings(api_keys=("secret",)))


def test_fault_in_the_model_is_a_500_without_details_and_the_next_request_works(
    fresh: TorchCaptioner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("inner secret")

    with in_thread(fresh, Settings(**QUIET)) as url:
        with monkeypatch.context() as patched:
            patched.setattr(fresh, "caption_waveforms", broken)
            answer = post(url)
        assert answer.status_code == 500
        assert "inner secret" not in answer.text
        assert post(url).status_code == 200


def batched(
    captioner: TorchCaptioner, waveforms: list, decodings: list, precision: Precision = "fp32"
) -> tuple[list, str]:
    """The captions of windows that arrive together, and the batch counters."""

    async def run() -> tuple[list, str]:
        metrics = Metrics()
        batcher = Batcher(captioner, Settings(batch_size=4, precision=precision), metrics)
        asked = [
            batcher.captions([waveform], decoding)
            for waveform, decoding in zip(waveforms, decodings, strict=True)
        ]
        found = await asyncio.gather(*asked)
        await batcher.close()
        return [rows[0][0].text for rows in found], metrics.text().decode()

    return asyncio.run(run())


def test_the_model_computes_in_the_number_format_of_the_service(
    captioner: TorchCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = []
    search = captioner.caption_waveforms

    def noted(waveforms: list, decoding: Decoding) -> list:
        formats.append(
            torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        )
        return search(waveforms, decoding)

    monkeypatch.setattr(captioner, "caption_waveforms", noted)
    for precision in ("fp32", "bf16"):
        batched(captioner, [noise(1.0)], [Decoding(max_new_tokens=4)], precision)
    assert formats == [None, torch.bfloat16]


def test_batches_hold_what_waits_and_change_no_caption(captioner: TorchCaptioner) -> None:
    decoding = Decoding(max_new_tokens=8)
    waveforms = [noise(1.0 + 0.1 * seed, seed) for seed in range(6)]
    found, metrics = batched(captioner, waveforms, [decoding] * 6)
    assert found == [captioner.caption_waveforms([w], decoding)[0][0].text for w in waveforms]
    assert "earwitness_batch_windows_count 2.0" in metrics


def test_other_search_sampling_and_lengths_do_not_share_a_batch(captioner: TorchCaptioner) -> None:
    plain, drawn = Decoding(max_new_tokens=4), Decoding(max_new_tokens=4, sample=True, seed=3)
    waveforms = [noise(1.0), noise(1.0), noise(9.0), noise(1.0, 1), noise(1.0, 2)]
    decodings = [plain, plain.model_copy(update={"beam_size": 2}), plain, drawn, drawn]
    found, metrics = batched(captioner, waveforms, decodings)
    assert "earwitness_batch_windows_count 5.0" in metrics
    expected = [
        captioner.caption_waveforms([w], d)[0][0].text
        for w, d in zip(waveforms, decodings, strict=True)
    ]
    assert found == expected


@given(
    st.lists(st.sampled_from(["a dog barks", "dogs barking", "rain", ""]), min_size=1, max_size=9),
    st.sampled_from([1.0, 0.7]),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=80)
def test_settled_segments_are_those_of_the_whole(texts: list[str], hop: float, step: int) -> None:
    raw = [
        Segment(
            i * hop,
            i * hop + 1.0,
            text or "no distinct sound",
            0.5,
            None if text else "silence",
            heard=(i * hop + 0.25, i * hop + 0.6) if text and i % 3 else None,
        )
        for i, text in enumerate(texts)
    ]
    final: list[Segment] = []
    held: list[Segment] = []
    for start in range(0, len(raw), step):
        done, held = settled(held + raw[start : start + step])
        final += done
    assert [(s.start, s.end, s.caption) for s in [*final, *merge(cover(held))]] == [
        (s.start, s.end, s.caption) for s in merge(cover(raw))
    ]


def test_spectrogram_is_a_png_that_is_bright_where_the_sound_is() -> None:
    sound = np.concatenate([np.zeros(16000), noise(1.0)]).astype(np.float32)
    image = Image.open(io.BytesIO(picture.spectrogram_png(sound, 16000)))
    pixels = np.asarray(image)
    assert (image.format, pixels.shape) == ("PNG", (picture.ROWS, 250, 3))
    assert (pixels[:, :120] == pixels[0, 0]).all()
    assert pixels[:, 130:].mean() > 2 * pixels[:, :120].mean()


def test_headline_of_a_long_sound_is_what_fills_most_of_it() -> None:
    texts = ["a dog barks", "rain falls", "dogs barking", "a bell", "wind blows", "rain falls"]
    seconds = [2.0, 9.0, 3.0, 1.0, 4.0, 9.0]
    edges = np.cumsum([0.0, *seconds])
    segments = [
        Segment(start, end, text, 0.5)
        for start, end, text in zip(edges, edges[1:], texts, strict=False)
    ]
    assert card.headline(segments[:1]) == "a dog barks"
    assert card.headline(segments) == "a dog barks; rain falls; wind blows; and 1 more"
    silent = Segment(0.0, 9.0, "no distinct sound", None, "silence")
    assert card.headline([silent, segments[0]]) == "a dog barks"
    assert card.headline([silent, silent]) == "no distinct sound"


def test_n_best_is_in_the_order_of_the_score_that_is_shown() -> None:
    candidates = tuple(Candidate(t, s, r) for t, s, r in (("a", 0.2, 0.9), ("b", 0.4, None)))
    candidates += (Candidate("c", 0.3, 0.95),)
    segment = Segment(0.0, 1.0, "a", 0.2, candidates=candidates)
    heard = SoundResult("x.wav", 1.0, (segment,))
    for second, expected in (("", ["b", "c", "a"]), ("agreement", ["c", "a", "b"])):
        html = card.result(heard, noise(1.0), 16000, card.Insight(second=second), "m")
        assert re.findall(r'class="ew-label">(\w)<', html) == expected
        assert re.findall(r'class="ew-chosen"><span class="ew-label">(\w)<', html) == ["a"]


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 6000.0])
def test_tone_is_bright_at_its_pitch(hertz: float) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
    row = picture.spectrogram_db(tone, 16000).mean(axis=1).argmax()
    edges = np.geomspace(8000, 60, picture.ROWS + 1)
    assert edges[row + 1] * 0.9 <= hertz <= edges[row] * 1.1


def test_waveform_reaches_both_edges_where_the_sound_is_loudest() -> None:
    samples = np.zeros(1000, np.float32)
    samples[300], samples[700] = 0.2, -0.2
    numbers = [pair.split() for pair in picture.waveform_path(samples, 10)[1:-1].split(" L")]
    heights = [float(y) for _, y in numbers]
    assert (min(heights), max(heights)) == (2.0, 98.0)


def test_card_escapes_what_strangers_named() -> None:
    segment = Segment(0.0, 1.0, "<script>alert(1)</script> & more", 0.5)
    heard = SoundResult('<img src="x">.wav', 1.0, (segment,))
    insight = card.Insight(card.GuideWords([("<b>", 1.0)], 0.0, 1.0))
    html = card.result(heard, noise(1.0), 16000, insight, "m<i>")
    assert "<script>" not in html
    assert "<img src" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
