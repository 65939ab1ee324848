"""The lines of speech of `earwitness caption --speech`."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from earwitness.audio.tracks import Track
from earwitness.captioning.sources import Source
from earwitness.captioning.speech import SpeechModel
from earwitness.captioning.speech_lines import READING, lines_of
from earwitness.captioning.subtitles import Subtitles


def transcription(
    name: str,
    sources: Iterable[Source],
    device: str,
    track: Track,
    note: Callable[[str], None],
) -> Callable[[str], Subtitles]:
    """What gives the speech of a source, by its name, as lines that can be read; the model is
    loaded now.

    Raises CheckpointError, ConfigError and MissingDependencyError; what it gives, AudioError.
    """
    model = SpeechModel.load(name, device)

    named = {source.name: source for source in sources}

    def speech(name: str) -> Subtitles:
        # Each sound has a language of its own.
        hears = replace(model, language=None)
        cues, fast = lines_of(hears.words(named[name].again().audio, track=track))
        if fast:
            speed = f"{READING.speed:g} characters per second"
            note(f"{name}: {fast} lines of speech are faster than {speed}")
        return Subtitles(tuple(cues))

    return speech
