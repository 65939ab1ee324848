"""Containers by what they hold, not by their names; nothing but the file itself is opened."""

import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.format import ContainerFormat
from muxing import Track, mux
from sounds import NEEDS_FFMPEG, assert_tone, encode, tone, wav_bytes

from earwitness.audio import load
from earwitness.audio.container import DEMUXERS
from earwitness.errors import AudioError
from earwitness.io.suffixes import SOUND_SUFFIXES

CODECS = {
    **dict.fromkeys((".mp3",), "libmp3lame"),
    **dict.fromkeys((".m4a", ".m4b", ".mp4", ".mov", ".m4v", ".3gp", ".3g2", ".aac"), "aac"),
    **dict.fromkeys((".mp2", ".ts", ".mpg", ".vob", ".avi", ".m2t"), "mp2"),
    **dict.fromkeys((".mts", ".m2ts", ".ac3"), "ac3"),
    **dict.fromkeys((".opus", ".webm", ".mka", ".mkv"), "libopus"),
    **dict.fromkeys((".wma", ".asf"), "wmav2"),
    **{".eac3": "eac3", ".flac": "flac", ".oga": "flac", ".tta": "tta", ".wv": "wavpack"},
    **dict.fromkeys((".wav", ".nut", ".w64", ".voc"), "pcm_s16le"),
    **dict.fromkeys((".aiff", ".aif", ".au", ".caf"), "pcm_s16be"),
}


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("seen", [True, False])
def test_suffix_of_the_list_can_be_read_with_and_without_it(
    tmp_path: Path, suffix: str, seen: bool
) -> None:
    track = Track(tone(48000, 2.0), codec=CODECS[suffix])
    options = {"mpegts_m2ts_mode": "1"} if suffix in (".m2ts", ".mts") else {}
    kinds = {".m4b": "mp4", ".m4v": "mp4", ".m2t": "mpegts", ".mts": "mpegts", ".mpg": "mpeg"}
    kinds |= {".vob": "mpeg", ".oga": "ogg", ".opus": "ogg", ".aif": "aiff"}
    kind = kinds.get(suffix)
    path = mux(tmp_path / f"x{suffix}", track, format=kind, options=options)
    assert suffix in SOUND_SUFFIXES
    sound = load(path if seen else path.read_bytes(), 16000)
    assert_tone(sound, 16000, tolerance=0.05)
    assert len(sound) / 16000 == pytest.approx(2.0, abs=0.15)


def test_every_suffix_of_the_list_belongs_to_a_reader() -> None:
    """By FFmpeg's own lists, libsndfile's, and a few common names that neither of them lists."""
    known = {f".{kind.lower()}" for kind in soundfile.available_formats()}
    for demuxer in DEMUXERS:
        known |= {f".{ending}" for ending in ContainerFormat(demuxer, "r").extensions}
    for muxer in av.formats_available:
        try:
            known |= {f".{ending}" for ending in ContainerFormat(muxer, "w").extensions}
        except ValueError:
            continue
    common = {".aif", ".aifc", ".awb", ".bwf", ".dff", ".m4r", ".mpa", ".qt", ".ra", ".rmvb"}
    common |= {".dsf", ".ogx", ".snd", ".sph", ".svx", ".dtshd", ".wave"}
    assert known | common >= SOUND_SUFFIXES
    assert all(suffix == suffix.lower() for suffix in SOUND_SUFFIXES)


def test_no_demuxer_opens_other_files() -> None:
    reference = {"concat", "hls", "dash", "image2", "sdp", "rtsp", "imf", "webm_dash_manifest"}
    reference |= {"vobsub", "ffmetadata", "lavfi", "tty", "concatf", "applehttp"}
    assert not reference & set(DEMUXERS)
    for name in DEMUXERS:
        assert ContainerFormat(name, "r").is_input


def test_mp4_that_starts_with_free_space_is_read(tmp_path: Path) -> None:
    contents = mux(tmp_path / "x.m4a", Track(tone(48000, 2.0), codec="aac")).read_bytes()
    # The free box behind the first one goes to the front: all else keeps its place.
    (size,) = struct.unpack(">I", contents[:4])
    free = contents[size : size + 8]
    assert free == b"\0\0\0\x08free"
    moved = free + contents[:size] + contents[size + 8 :]
    assert_tone(load(moved, 16000), 16000, tolerance=0.05)


@NEEDS_FFMPEG
def test_raw_dts_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.dts", "-c:a", "dca", "-strict", "-2", rate=48000)
    assert_tone(load(path, 16000), 16000, tolerance=0.05)


@pytest.mark.parametrize("rate", [256_000, 384_000, 500_000, 768_000])
def test_recorders_of_bats_are_resampled(rate: int) -> None:
    assert_tone(load(wav_bytes(tone(rate), rate), 16000), 16000)


def test_track_that_ends_before_the_pictures_is_complete(tmp_path: Path) -> None:
    for name, codec in (("x.mp4", "aac"), ("x.mkv", "libopus"), ("x.webm", "libopus")):
        video = 0.0 if name == "x.webm" else 10.0
        path = mux(tmp_path / name, Track(tone(48000, 2.0), codec=codec), video=video)
        assert_tone(load(path, 16000), 16000, tolerance=0.05)


SUBTITLES = "1\n00:00:01,000 --> 00:00:02,000\nhi\n\n2\n00:00:50,000 --> 00:00:55,000\nlate\n"
CHAPTERS = ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=60000\ntitle=One\n"


@NEEDS_FFMPEG
@pytest.mark.parametrize(
    ("name", "notes", "options"),
    [
        ("x.mka", SUBTITLES, ["-map", "0:a", "-map", "1:s", "-c:s", "srt"]),
        ("x.m4a", SUBTITLES, ["-map", "0:a", "-map", "1:s", "-c:s", "mov_text"]),
        ("x.m4b", CHAPTERS, ["-map", "0:a", "-map_metadata", "1", "-f", "mp4"]),
        ("x.mka", CHAPTERS, ["-map", "0:a", "-map_metadata", "1"]),
    ],
)
def test_subtitles_and_chapters_that_last_longer_cut_nothing_off(
    tmp_path: Path, name: str, notes: str, options: list[str]
) -> None:
    text = tmp_path / ("x.txt" if notes is CHAPTERS else "x.srt")
    text.write_text(notes)
    path = encode(tmp_path / name, "-i", str(text), *options, "-c:a", "aac", seconds=2)
    assert_tone(load(path, 16000), 16000, tolerance=0.05)


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{0}'\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "mpd": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{0}</BaseURL></MPD>',
    "asx": '<asx version="3.0"><entry><ref href="{0}"/></entry></asx>',
    "ram": "file://{0}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".m4a", ".mp3", ".wav", ".ts"])
def test_playlist_is_no_sound(tmp_path: Path, kind: str, suffix: str) -> None:
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, tone(16000), 16000)
    path = tmp_path / f"list.{kind}{suffix}"
    path.write_text(PLAYLISTS[kind].format(secret))
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError, match="not a sound"):
            load(source, 16000)


def test_movie_whose_samples_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    """QuickTime's data references may name any path."""
    path = mux(tmp_path / "x.mov", Track(tone(48000, 2.0)))
    secret = tmp_path / "secret.raw"
    secret.write_bytes(path.read_bytes())
    contents = path.read_bytes()
    alias = b"url " + struct.pack(">I", 0) + f"file://{secret}".encode() + b"\0"
    at = contents.index(b"url \0\0\0\1") - 4
    grown = struct.pack(">I", len(alias) + 4) + alias
    added = len(grown) - 12
    data = bytearray(contents[:at] + grown + contents[at + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = data.index(box) - 4
        (size,) = struct.unpack(">I", data[place : place + 4])
        data[place : place + 4] = struct.pack(">I", size + added)
    media = data.index(b"mdat") + 4
    data[media : media + 1000] = bytes(1000)
    try:
        sound = load(bytes(data), 48000)
    except AudioError:
        return
    # What is read is the file's own: the zeros written over its samples.
    assert np.abs(sound[:400]).max() == 0


def test_program_ffmpeg_is_not_asked(tmp_path: Path) -> None:
    path = mux(tmp_path / "x.m4a", Track(tone(48000, 1.0), codec="aac"))
    code = f"from earwitness.audio import load; print(len(load({str(path)!r}, 16000)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert int(run.stdout) == pytest.approx(16000, abs=1000)
    assert run.stderr == ""
