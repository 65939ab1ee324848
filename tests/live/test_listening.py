"""Listening to real sources: FIFO, FFmpeg over UDP, HTTP and RTSP, PortAudio; and how they fail."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earwitness.audio.sound import Block
from earwitness.errors import AudioError, ConfigError
from earwitness.live.listening import Listener, Pump
from earwitness.live.records import Report
from earwitness.live.sources import Address, Pcm, Pipe, SoundFile, samples, source_of

RATE = 16000
NEEDS_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


class Ears:
    """In place of a live captioner: counts samples and gaps."""

    rate = RATE

    def __init__(self, slow: float = 0.0) -> None:
        self.samples: list[np.ndarray] = []
        self.gaps: list[float] = []
        self.finished = 0
        self.slow = slow

    @property
    def seconds(self) -> float:
        return sum(map(len, self.samples)) / RATE

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate(self.samples)

    def feed(self, piece: np.ndarray) -> list[Report]:
        time.sleep(self.slow)
        self.samples.append(piece)
        return []

    def skip(self, seconds: float) -> list[Report]:
        self.gaps.append(seconds)
        return []

    def finish(self) -> list[Report]:
        self.finished += 1
        return []


def listener(source: object, ears: Ears, said: list[str], **more: object) -> Listener:
    """Made without its type checks: the ears are a stand-in."""
    found = object.__new__(Listener)
    defaults = {"stall": 10.0, "retries": 0, "longest": float("inf"), "_arrived": 0.0}
    parts = {"source": source, "live": ears, "report": list, "say": said.append}
    found.__dict__.update({**defaults, **parts, "stop": threading.Event(), **more})
    return found


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


def assert_tone(sound: np.ndarray, rate: int = RATE) -> None:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() * rate / len(sound) == pytest.approx(440, rel=0.02)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def ffmpeg(*arguments: str) -> Iterator[subprocess.Popen]:
    """FFmpeg that sends a tone."""
    sine = ["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
    argv = ["ffmpeg", "-nostdin", "-v", "error", *sine, *arguments]
    process = subprocess.Popen(argv)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("pcm", "dtype", "scale"),
    [(Pcm("s16le"), "<i2", 32768), (Pcm("f32le"), "<f4", 1), (Pcm("s32le"), "<i4", 2**31)],
)
def test_fifo_of_samples_is_read_to_its_end_whatever_the_pieces(
    tmp_path: Path, pcm: Pcm, dtype: str, scale: int
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = (tone() * (scale - 1 if scale > 1 else 1)).astype(dtype).tobytes()

    def write() -> None:
        with fifo.open("wb", buffering=0) as file:
            for start in range(0, len(data), 1237):
                file.write(data[start : start + 1237])

    threading.Thread(target=write).start()
    ears = Ears()
    source = source_of(str(fifo), pcm)
    assert isinstance(source, Pipe)
    listener(source, ears, []).run()
    assert np.allclose(ears.sound, tone(), atol=1e-3)
    assert ears.finished == 1


def test_stereo_at_another_rate_is_mixed_and_resampled(tmp_path: Path) -> None:
    rate = 44100
    one = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    (tmp_path / "a.raw").write_bytes(np.stack([one, one], 1).astype("<f4").tobytes())
    source = source_of(str(tmp_path / "a.raw"), Pcm("f32le", rate, 2))
    found = np.concatenate(list(samples(source, RATE)))
    assert len(found) == pytest.approx(RATE, abs=2)
    assert_tone(found)


def test_pipe_that_begins_as_a_sound_file_is_decoded(tmp_path: Path) -> None:
    for kind in ("WAV", "FLAC", "OGG"):
        fifo = tmp_path / kind
        os.mkfifo(fifo)
        soundfile.write(tmp_path / "sound", tone(), RATE, format=kind)
        data = (tmp_path / "sound").read_bytes()
        threading.Thread(target=fifo.write_bytes, args=[data]).start()
        found = np.concatenate(list(samples(Pipe(fifo, Pcm()), RATE)))
        assert len(found) == pytest.approx(RATE, abs=700), kind
        assert_tone(found)


def test_sound_file_is_a_stream_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(2.5), RATE)
    source = source_of(str(tmp_path / "a.flac"), Pcm())
    assert isinstance(source, SoundFile)
    ears = Ears()
    listener(source, ears, [], longest=1.5).run()
    assert ears.seconds == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such", "does not exist; expected a file or FIFO, -, an address such as rtsp"),
        ("..", "is a folder; expected a stream or one sound file"),
    ],
)
def test_input_that_is_nothing_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        source_of(name, Pcm())


@NEEDS_FFMPEG
def test_udp_stream_is_heard_and_its_stall_is_said(tmp_path: Path) -> None:
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    ears, said = Ears(), []
    with ffmpeg("-f", "mpegts", "-c:a", "aac", "-t", "3", f"{url}?pkt_size=1316"):
        started = time.monotonic()
        with pytest.raises(AudioError, match="broke off|no sound for 1 s|nothing arrives"):
            listener(Address(url, 1.0), ears, said, stall=1.0).run()
    assert time.monotonic() - started < 15
    assert ears.seconds > 1
    assert_tone(ears.sound[RATE // 2 :])


@NEEDS_FFMPEG
def test_http_stream_that_ends_is_tried_again_with_back_off() -> None:
    url = f"http://127.0.0.1:{free_port()}/live.mp3"
    ears, said = Ears(), []
    with ffmpeg("-t", "1.5", "-f", "mp3", "-listen", "1", url):
        _wait_for_port(url)
        with pytest.raises(AudioError, match="cannot be opened"):
            listener(Address(url), ears, said, retries=2).run()
    assert ears.seconds == pytest.approx(1.5, abs=0.3)
    assert_tone(ears.sound[RATE // 4 :])
    waits = [line.rpartition("trying again in ")[2] for line in said]
    assert waits == ["1 s", "2 s"]
    assert "ended" in said[0]
    assert any(seconds >= 1 for seconds in ears.gaps)


def _wait_for_port(url: str) -> None:
    """Until somebody listens: /proc tells without connecting."""
    port = f":{int(url.split(':')[2].split('/')[0]):04X} "
    for _ in range(200):
        if port in Path("/proc/net/tcp").read_text():
            return
        time.sleep(0.05)


@NEEDS_FFMPEG
@pytest.mark.skipif(shutil.which("rtsp-server-perl") is None, reason="needs rtsp-server-perl")
def test_rtsp_stream_is_heard() -> None:
    ports = free_port(), free_port()
    argv = ["rtsp-server-perl", "--clientport", str(ports[0]), "--serverport", str(ports[1])]
    server = subprocess.Popen([*argv, "--rtp_start_port", "27620"])
    try:
        _wait_for_port(f"rtsp://127.0.0.1:{ports[1]}/")
        ears, said = Ears(), []
        url = f"rtsp://127.0.0.1:{ports[0]}/live"
        with ffmpeg("-c:a", "aac", "-f", "rtsp", f"rtsp://127.0.0.1:{ports[1]}/live"):
            # The first tries may come before FFmpeg has announced the stream.
            listener(Address(url, 5.0), ears, said, longest=1.0, retries=5).run()
    finally:
        server.kill()
        server.wait()
    assert_tone(ears.sound[RATE // 4 :])


def test_password_of_an_address_is_not_said() -> None:
    port = free_port()
    source = Address(f"rtsp://user:secret@127.0.0.1:{port}/live")
    with pytest.raises(AudioError, match=f"^rtsp://127.0.0.1:{port}/live cannot be opened") as said:
        list(source.blocks())
    assert "secret" not in str(said.value)


@NEEDS_FFMPEG
def test_playlist_on_the_network_cannot_lead_to_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "private.wav", tone(), RATE)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/private.wav\n#EXT-X-ENDLIST\n"
    )
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", tmp_path]
    port = free_port()
    server = subprocess.Popen([*argv, str(port)], stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(f"http://127.0.0.1:{port}/")
        with pytest.raises(AudioError):
            list(Address(f"http://127.0.0.1:{port}/list.m3u8", 2.0).blocks())
    finally:
        server.kill()
        server.wait()


class Endless:
    """Sound without end, as fast as it is taken."""

    name, reconnects = "the endless one", True

    def blocks(self) -> Iterator[Block]:
        while True:
            time.sleep(0.001)
            yield Block(np.zeros((1600, 1), np.float32), RATE)


def test_sound_that_comes_faster_than_it_is_captioned_is_dropped_not_kept() -> None:
    ears, said = Ears(slow=0.05), []
    one = listener(Endless(), ears, said)
    one.say = lambda line: (said.append(line), one.stop.set())
    one.run()
    assert said
    assert said[0].startswith("too slow for the endless one:")
    pump = Pump(Endless(), RATE)
    pump.start()
    while not pump.dropped:
        time.sleep(0.05)
    assert pump.queue.qsize() <= 256
    pump.stop()


def test_pipe_that_stalls_is_said_and_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as file:
            file.write(np.zeros(8000, "<i2").tobytes())
            time.sleep(1.5)
            file.write(np.zeros(8000, "<i2").tobytes())

    threading.Thread(target=write).start()
    ears, said = Ears(), []
    listener(Pipe(fifo, Pcm()), ears, said, stall=0.5).run()
    assert [line.split("fifo' ")[1] for line in said] == [
        "has sent no sound for 0.5 s; waiting for it",
        "sends sound again",
        "ended",
    ]
    assert ears.gaps[1] == pytest.approx(1.5, abs=0.6)


def test_microphone_is_read_through_portaudio(tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", reason="needs sounddevice", exc_type=ImportError)
    if sys.platform != "linux":
        pytest.skip("needs ALSA, whose configuration can play a file as a microphone")
    # A microphone of ALSA's that plays a file; asked in a process of its own, as PortAudio reads
    # the configuration once.
    (tmp_path / "mic.raw").write_bytes((tone(30) * 32767).astype("<i2").tobytes())
    (tmp_path / "asound.conf").write_text(
        f"""pcm.null {{ type null }}
        pcm.filemic {{ type file slave.pcm null file /dev/null
          infile "{tmp_path}/mic.raw" format raw }}
        pcm.!default {{ type plug slave {{ pcm filemic rate {RATE} channels 1 format S16_LE }} }}
        """
    )
    code = (
        "import sys, numpy as np\n"
        "from earwitness.live.sources import source_of, samples, Pcm\n"
        f"pieces = samples(source_of(None, Pcm()), {RATE})\n"
        "sound = np.concatenate([next(pieces) for _ in range(20)])\n"
        "np.save(sys.argv[1], sound)\n"
    )
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out.npy"], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    sound = np.load(tmp_path / "out.npy")
    assert_tone(sound[RATE // 4 :])
