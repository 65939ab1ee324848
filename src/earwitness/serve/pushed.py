"""Sound that a client pushes, message by message, as a source that is read."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from earwitness.audio.container import joined
from earwitness.audio.sound import Block
from earwitness.errors import AudioError
from earwitness.live.sources import Pcm, PcmFormat, read_stream

StreamFormat = PcmFormat | Literal["opus"]

HELD = 16
"""messages that wait to be decoded"""


class Inbox:
    """A file object that gives what was put into it; `end` is its end."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue()
        self._rest = b""

    def put(self, data: bytes, taken: Callable[[], object]) -> None:
        """Puts a message in; `taken` is called from another thread once it is read."""
        self._queue.put(data)
        self._taken = taken

    def end(self) -> None:
        """Nothing follows."""
        self._queue.put(b"")

    def message(self) -> bytes:
        """The next whole message, waited for; b"" at the end."""
        data = self._queue.get()
        if data:
            self._taken()
        else:
            self._queue.put(b"")
        return data

    def read(self, size: int, /) -> bytes:
        """At most `size` of the bytes that are there, at least one; b"" at the end."""
        if not self._rest:
            self._rest = self.message()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@dataclass
class Pushed:
    """What arrives in `inbox`: samples without a header, a container (Ogg, WebM, WAV, FLAC), or one
    Opus packet per message.
    """

    inbox: Inbox
    format: StreamFormat
    pcm: Pcm
    name: str = "the stream"
    reconnects: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def blocks(self) -> Iterator[Block]:
        """The sound as it arrives. Raises AudioError."""
        if self.format == "opus":
            yield from self._packets()
        else:
            yield from read_stream(self.inbox, self.pcm, self.name)

    def _packets(self) -> Iterator[Block]:
        import av
        from av.error import FFmpegError

        decoder = av.AudioCodecContext.create("opus", "r")
        decoder.layout = "stereo" if self.pcm.channels == 2 else "mono"
        while data := self.inbox.message():
            try:
                for frame in decoder.decode(av.Packet(data)):
                    yield joined([frame])
            except (FFmpegError, ValueError):
                raise AudioError(
                    f"{self.name} holds a message that is not an Opus packet; expected one packet "
                    "per message, or Ogg or WebM without format=opus"
                ) from None
