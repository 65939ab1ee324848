"""Scenes as one HTML page with players, to judge by ear and eye how they fit their captions."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from earwitness.errors import DataError
from earwitness.io.atomic import write_text
from earwitness.templates import render
from earwitness_lab.scenes.mixing import Scene, SceneEvent


def write_listening_sheet(
    scenes: Sequence[Scene], path: Path | str, rate: int = 16000, title: str = "Scenes"
) -> None:
    """Writes `scenes` to the page at `path`: for each a player, its caption, and a bar per event.

    The sound is inside the page (Ogg Vorbis), so that it can be moved and sent as one file.

    Raises:
        DataError: `path` cannot be written.
        MissingDependencyError: Jinja2 is not installed.
    """
    page = render(
        "listening_sheet.html", title=title, scenes=[_shown(scene, rate) for scene in scenes]
    )
    write_text(Path(path), page, DataError, make_folder=False)


def _shown(scene: Scene, rate: int) -> dict[str, object]:
    seconds = len(scene.waveform) / rate
    return {
        "caption": scene.caption,
        "sound": base64.b64encode(_ogg(scene, rate)).decode(),
        "events": [_bar(event, seconds) for event in scene.events],
    }


def _bar(event: SceneEvent, seconds: float) -> dict[str, object]:
    """The place of an event on the timeline, in percent, and its name and level."""
    return {
        "left": 100 * event.start_s / seconds,
        "width": 100 * (event.end_s - event.start_s) / seconds,
        "right": max(0.0, 100 - 100 * event.end_s / seconds),
        "text": f"{event.label} {event.level_db:+.0f} dB",
    }


def _ogg(scene: Scene, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, scene.waveform, rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()
