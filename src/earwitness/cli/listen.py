"""`earwitness listen`: captions and events of a live stream."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_IN, _WHAT, _OUT, _RUN = "Input", "What is reported", "Output", "Running"


class PcmFormat(StrEnum):
    """Samples without a header."""

    s16le = "s16le"
    s32le = "s32le"
    f32le = "f32le"
    u8 = "u8"


class Only(StrEnum):
    """One of the two kinds of reports."""

    captions = "captions"
    events = "events"


def listen(
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="SOURCE",
            help="A microphone (its number or name), a FIFO or file, - for standard input, or an "
            "address: rtsp, http, https, udp, rtp, srt, tcp. Default: the default microphone.",
            rich_help_panel=_IN,
        ),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List the microphones.", rich_help_panel=_IN)
    ] = False,
    pcm: Annotated[
        PcmFormat,
        typer.Option(help="Format of samples without a header.", rich_help_panel=_IN),
    ] = PcmFormat.s16le,
    rate: Annotated[
        int,
        typer.Option(min=8000, max=768000, help="Their sample rate in Hz.", rich_help_panel=_IN),
    ] = 16000,
    channels: Annotated[
        int, typer.Option(min=1, max=64, help="Their channels.", rich_help_panel=_IN)
    ] = 1,
    stall: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds without data after which a source is lost.", rich_help_panel=_IN
        ),
    ] = 10.0,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Consecutive tries to reach a lost microphone or address. Default: unlimited.",
            rich_help_panel=_IN,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="SOUNDS",
            help="Only these sounds, comma-separated: 'smoke alarm,baby crying'.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    above: Annotated[
        float,
        typer.Option(min=0, max=1, help="Minimum probability of an event.", rich_help_panel=_WHAT),
    ] = 0.5,
    cool_down: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time before the same sound is reported again.",
            rich_help_panel=_WHAT,
        ),
    ] = 0.0,
    only: Annotated[
        Only | None, typer.Option(help="Only this kind of report.", rich_help_panel=_WHAT)
    ] = None,
    every: Annotated[
        float,
        typer.Option(
            min=2,
            max=30,
            metavar="SECONDS",
            help="How often a continuing sound is captioned.",
            rich_help_panel=_WHAT,
        ),
    ] = 10.0,
    silence: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="Silence threshold: the level of the loudest 0.1 s (dBFS).",
            rich_help_panel=_WHAT,
        ),
    ] = -60.0,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="File to append to: .jsonl or .vtt; repeat it for both.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing .vtt.", rich_help_panel=_OUT),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per line.", rich_help_panel=_OUT),
    ] = False,
    mqtt: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Publish to mqtt://\\[user@]host\\[:port]\\[/topic], or mqtts://; the password "
            "can be set in EARWITNESS_MQTT_PASSWORD.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    home_assistant: Annotated[
        bool,
        typer.Option(
            "--home-assistant",
            help="Announce sensors to Home Assistant over --mqtt, one per sound in --on.",
            rich_help_panel=_OUT,
        ),
    ] = False,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="POST each report to this address as JSON.", rich_help_panel=_OUT
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run this program for each report, without a shell: 'notify-send {text}'. Also "
            "{type}, {start}, {end}, {score}, {time}, {source}; JSON on its standard input.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only errors, no reports.", rich_help_panel=_OUT),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            help="A pocket model, a model folder, or owner/name on the Hugging Face hub.",
            rich_help_panel=_RUN,
        ),
    ] = "pocket-lamb",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = "auto",
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="SECONDS", help="Stop after this time.", rich_help_panel=_RUN
        ),
    ] = None,
) -> None:
    """Listens, and reports what it hears as it happens.

    A caption comes within two seconds of the end of a sound, or every 10 s if
    it continues; an event when it starts and when it ends. A stream that breaks
    off is tried again. Stop with Ctrl-C.

    Examples:

      earwitness listen

      earwitness listen --on "smoke alarm,baby crying" --above 0.7 --cool-down 60

      earwitness listen -i rtsp://camera.local/live -o day.vtt -o day.jsonl

      earwitness listen --on doorbell --run "notify-send {text}"

      arecord -f S16_LE -r 16000 | earwitness listen -i - --json
    """
    from earwitness.cli.listen_job import ListenJob, list_devices
    from earwitness.live.sources import Pcm, source_of

    if devices:
        list_devices()
        return
    if home_assistant and mqtt is None:
        raise typer.BadParameter("needs --mqtt", param_hint="--home-assistant")
    job = ListenJob(
        source_of(source, Pcm(pcm.value, rate, channels), stall),
        model,
        device,
        on,
        above,
        cool_down,
        only.value if only else None,
        every,
        silence,
    )
    job.check(tuple(output or ()), webhook, run)
    job.load()
    if mqtt is not None:
        job.open_mqtt(mqtt, home_assistant)
    job.open(overwrite, as_json, quiet)
    job.run(stall, retries, duration)
