"""Scenes as one HTML page with players: to judge by ear and eye how they tell their captions."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from earwitness.errors import DataError
from earwitness.io.atomic import write_text
from earwitness_lab.scenes.mixing import Scene, SceneEvent

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
article { border-top: 1px solid #ccc; padding: 1rem 0; }
h2 { font-size: 1.05rem; margin: 0 0 .4rem; }
audio { width: 100%; }
.lane { position: relative; height: 1.6rem; background: #f0f0f0; margin-top: 2px; }
.lane span { position: absolute; height: 100%; background: #9ec5e8; box-sizing: border-box;
  padding: 0 .3rem; font-size: .8rem; white-space: nowrap; overflow: visible; }
"""


def write_listening_sheet(
    scenes: Sequence[Scene], path: Path | str, rate: int = 16000, title: str = "Scenes"
) -> None:
    """Writes `scenes` to the page at `path`: for each a player, its caption, and a bar per event.

    The sound is inside the page (Ogg Vorbis), so that it can be moved and sent as one file.

    Raises:
        DataError: `path` cannot be written.
    """
    body = "\n".join(_article(number, scene, rate) for number, scene in enumerate(scenes, 1))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    write_text(Path(path), page, DataError, make_folder=False)


def _article(number: int, scene: Scene, rate: int) -> str:
    seconds = len(scene.waveform) / rate
    lanes = "\n".join(_lane(event, seconds) for event in scene.events)
    sound = base64.b64encode(_ogg(scene, rate)).decode()
    return (
        f"<article><h2>{number}. {html.escape(scene.caption or 'without a caption')}</h2>\n"
        f'<audio controls preload="none" src="data:audio/ogg;base64,{sound}"></audio>\n'
        f"{lanes}\n</article>"
    )


def _lane(event: SceneEvent, seconds: float) -> str:
    left = 100 * event.start_s / seconds
    width = 100 * (event.end_s - event.start_s) / seconds
    text = f"{html.escape(event.label)} {event.level_db:+.0f} dB"
    return (
        f'<div class="lane"><span style="left:{left:.1f}%;width:{width:.1f}%">{text}</span></div>'
    )


def _ogg(scene: Scene, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, scene.waveform, rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()
