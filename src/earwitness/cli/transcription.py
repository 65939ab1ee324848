"""The lines of speech of `earwitness caption --speech`."""

from collections.abc import Callable

from earwitness.audio.tracks import Track
from earwitness.captioning.sources import Source
from earwitness.captioning.speech import SpeechModel
from earwitness.captioning.speech_lines import READING, lines_of
from earwitness.captioning.subtitles import Subtitles


def transcription(
    name: str, source: Source, device: str, track: Track, note: Callable[[str], None]
) -> Callable[[], Subtitles]:
    """What gives the speech of a sound as lines that can be read, by a model that is loaded now.

    Raises CheckpointError, ConfigError and MissingDependencyError; what it gives, AudioError.
    """
    model = SpeechModel.load(name, device)

    def speech() -> Subtitles:
        cues, fast = lines_of(model.words(source.audio, track=track))
        if fast:
            note(f"{fast} lines of speech are faster than {READING.speed:g} characters per second")
        return Subtitles(tuple(cues))

    return speech
