"""Which audio track of a file is read."""

from typing import TYPE_CHECKING

from earwitness.audio.sound import ACCEPTED, Note
from earwitness.errors import AudioError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Track = int | str | None
"""an audio track by its number from 1 or by its language ("eng"); None: the file's default"""


def chosen(container: "InputContainer", name: str, track: Track, note: Note) -> "AudioStream":
    """The audio track that `track` selects; if None, the one that the file marks as default.

    Notes the others if there are several and none is selected. Raises AudioError: no such track.
    """
    streams = list(container.streams.audio)
    if not streams:
        raise AudioError(f"{name} has no audio track; expected {ACCEPTED}")
    if track is None:
        from av.stream import Disposition

        found = next((s for s in streams if s.disposition & Disposition.default), streams[0])
        if len(streams) > 1:
            number = streams.index(found) + 1
            note(f"{name}: track {number} of {len(streams)} audio tracks ({_listed(streams)})")
        return found
    for number, stream in enumerate(streams, start=1):
        if str(track) == str(number) or _speaks(stream, str(track)):
            return stream
    raise no_track(name, track, len(streams), _listed(streams))


def no_track(name: str, track: Track, count: int, listed: str) -> AudioError:
    """The error for a track that does not exist."""
    numbers = "1" if count == 1 else f"1 to {count}"
    return AudioError(f"{name} has no audio track {track!r}; expected {numbers} ({listed})")


def _speaks(stream: "AudioStream", language: str) -> bool:
    """Whether the track's language is `language`, or begins with it ("en" for "eng")."""
    own, wanted = _language(stream).lower(), language.lower()
    return own == wanted or (len(wanted) == 2 and own.startswith(wanted))


def _listed(streams: "list[AudioStream]") -> str:
    return ", ".join(f"{n} {_language(stream)}" for n, stream in enumerate(streams, start=1))


def _language(stream: "AudioStream") -> str:
    """The language that the file states: normally three letters, but it can be anything."""
    return "".join(sign for sign in stream.language or "" if sign.isalnum())[:12] or "und"
