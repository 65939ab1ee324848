"""Speech subtitles for `earwitness caption --speech`."""

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
    """A function that transcribes a source, by its name, into readable subtitles; the model is
    loaded now.

    Raises CheckpointError, ConfigError and MissingDependencyError; the function, AudioError.
    """
    model = SpeechModel.load(name, device)

    named = {source.name: source for source in sources}

    def speech(name: str) -> Subtitles:
        # Each sound has its own language.
        hears = replace(model, language=None)
        cues, fast = lines_of(hears.words(named[name].again().audio, track=track))
        if fast:
            speed = f"{READING.speed:g} characters per second"
            note(f"{name}: {fast} speech cues are faster than {speed}")
        return Subtitles(tuple(cues))

    return speech
