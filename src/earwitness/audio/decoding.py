"""Sound files as blocks of samples at their own rate, by FFmpeg or, where it is safe, libsndfile.

Framed formats go through `container`. libsndfile reads plain formats whose header agrees with the
file (WAV, AIFF, FLAC, Ogg), and formats that only it knows.
"""

import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from earwitness.audio import container, headers, joined
from earwitness.audio.sound import (
    ACCEPTED,
    TRUNCATION,
    Block,
    Note,
    Sound,
    block_frames,
    check_bytes,
    check_promise,
    check_rate,
    cut_off,
    damaged,
    not_a_sound,
    reason_of,
)
from earwitness.audio.tracks import Track
from earwitness.errors import AudioError
from earwitness.io.text_files import url_in

if TYPE_CHECKING:
    from soundfile import SoundFile

_FRAMES_UNKNOWN = 1 << 62
# A program that writes to a pipe cannot know the size and states about 2 or 4 GiB in the header.
_SIZE_UNKNOWN = 0x7FFF0000
# libsndfile's SF_ERR_MALFORMED_FILE: a known format, but malformed.
_MALFORMED = 3
# Formats that give speaker positions for more than two channels, which libsndfile does not report.
_PLACED = ("FLAC", "OGG", "CAF")
# libsndfile's report of a chunk that extends past the end of the file.
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.M)
_SHORT_RF64 = re.compile(r"does not match value from 'ds64' chunk of (\d+)")
_MPEG = (".mp1", ".mp2", ".mp3", ".mpa", ".m1a", ".m2a", ".m3a")
_CONTAINERS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"caff", b".snd")
_ZIP = b"PK\x03\x04"


@contextmanager
def decoded(
    path: Path, name: str, max_bytes: float | int, track: Track, note: Note
) -> Generator[Sound]:
    """The file opened by libsndfile if that is known to be safe, else by FFmpeg's libraries."""
    head = _head(path, name, max_bytes)
    if head.startswith(_ZIP):
        # FFmpeg would find the frames of an mp3 inside.
        raise not_a_sound(name)
    try:
        links = joined.links(path, head)
        plain = len(links) <= 1 and _is_plain(path, head) and track in (None, 1, "1")
        wave = headers.wave(path, head) if plain else None
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({reason_of(error)})") from None
    with ExitStack() as opened:
        file = _sndfile(path, name, wave or headers.Wave(), opened) if plain else None
        if file is None:
            whole = [(0, path.stat().st_size)]
            blocks = container.blocks(path, name, links or whole, track, note)
            opened.enter_context(closing(blocks))
            yield Sound(name, None, blocks)
            return
        check_rate(name, file.samplerate)
        _check_size(file, name)
        seconds = file.frames / file.samplerate
        if wave is not None and wave.patches:
            stated = seconds * wave.stated / wave.found
            note(f"{name}: its header states {stated:.2f} s; all {seconds:.2f} s are read")
        layout = wave.layout if wave is not None else None
        yield Sound(name, seconds, _sndfile_blocks(file, name, layout, note))


def _is_plain(path: Path, head: bytes) -> bool:
    """Whether libsndfile may read it: no MPEG frames (it estimates their length), no joined FLAC.

    Raises OSError.
    """
    if head.startswith(b"ID3") or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
        return False
    # For such an extension libsndfile would use libmpg123, which prints errors to stderr.
    if path.suffix.lower() in _MPEG and not head.startswith(_CONTAINERS):
        return False
    return not (head.startswith(b"fLaC") and joined.is_joined_flac(path))


def _sndfile(path: Path, name: str, wave: headers.Wave, opened: ExitStack) -> "SoundFile | None":
    """The file opened by libsndfile; None if FFmpeg should read it instead.

    Raises AudioError: a known format, but malformed.
    """
    import soundfile

    try:
        if wave.patches:
            mended = opened.enter_context(headers.Patched(path, wave.patches))
            file = opened.enter_context(soundfile.SoundFile(mended))
        else:
            file = opened.enter_context(soundfile.SoundFile(_as_named(path)))
    except soundfile.LibsndfileError as error:
        # A truncated CAF file, for example; FFmpeg would settle for what is left.
        if error.code == _MALFORMED and not _is_open_ended(path):
            raise damaged(name) from None
        return None
    except TypeError:
        # For the extension .raw, soundfile requires a rate from the caller.
        return None
    # Without a header libsndfile would go by the extension alone (.vox, .gsm, ...).
    wrong = file.format == "RAW" or file.subtype.startswith("MPEG")
    # FLAC written to a pipe: soundfile seeks after each read, which fails without a length.
    endless = file.frames >= _FRAMES_UNKNOWN or (file.format == "FLAC" and file.frames == 0)
    placed = file.channels > 2 and file.format in _PLACED
    return None if wrong or endless or placed else file


def _as_named(path: Path) -> Path | bytes:
    """The path, as bytes if it is not valid UTF-8: soundfile encodes text strictly."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _is_open_ended(path: Path) -> bool:
    """Whether a CAF file leaves the size of its last chunk open, as the format allows."""
    with path.open("rb") as file:
        return b"data" + b"\xff" * 8 in file.read(1 << 16)


def _absent(path: Path) -> str:
    """Why there is nothing at `path`: it is a URL, its folder is missing, or the file itself is."""
    if url_in(str(path)) is not None:
        return "is a URL; expected a file on this computer"
    if not path.parent.is_dir():
        return f"does not exist: there is no folder {str(path.parent)!r}; expected {ACCEPTED}"
    return f"does not exist; expected {ACCEPTED}"


def _head(path: Path, name: str, max_bytes: float | int) -> bytes:
    """The first bytes of a regular, readable file that is neither empty nor too large."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise AudioError(f"{name} is a folder; expected {ACCEPTED}")
        if not stat.S_ISREG(info.st_mode):
            raise AudioError(f"{name} is not a regular file; expected {ACCEPTED}")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise AudioError(f"{name} {_absent(path)}") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read ({reason_of(error)})") from None
    if not head:
        raise AudioError(f"{name} is empty (0 bytes); expected {ACCEPTED}")
    check_bytes(name, info.st_size, max_bytes)
    return head


def _check_size(file: "SoundFile", name: str) -> None:
    """Raises AudioError for a file shorter than its header."""
    report = file.extra_info
    for size, found in _SHORT_CHUNK.findall(report):
        if TRUNCATION * int(found) < int(size) < _SIZE_UNKNOWN:
            seconds = file.frames / file.samplerate
            raise cut_off(name, seconds * int(size) / max(1, int(found)), seconds)
    for frames in _SHORT_RF64.findall(report):
        if int(frames) > TRUNCATION * file.frames:
            raise cut_off(name, int(frames) / file.samplerate, file.frames / file.samplerate)


def _sndfile_blocks(
    file: "SoundFile", name: str, layout: tuple[str, ...] | None, note: Note
) -> Iterator[Block]:
    import soundfile

    frames, seen = block_frames(file.channels), 0
    while True:
        try:
            block = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            raise damaged(name) from None
        if len(block) == 0:
            break
        seen += len(block)
        yield Block(block, file.samplerate, layout)
    if seen:
        check_promise(name, file.frames / file.samplerate, seen / file.samplerate, note)
