"""`earwitness listen`: captions and events of a stream, as they happen."""

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
        typer.Option(min=8000, max=768000, help="Their rate in Hz.", rich_help_panel=_IN),
    ] = 16000,
    channels: Annotated[
        int, typer.Option(min=1, max=64, help="Their channels.", rich_help_panel=_IN)
    ] = 1,
    stall: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds without sound after which a source is lost.", rich_help_panel=_IN
        ),
    ] = 10.0,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tries in a row to reach a lost microphone or address. Default: no end.",
            rich_help_panel=_IN,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="SOUNDS",
            help="Only these, separated by commas: 'smoke alarm,baby crying'.",
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
            help="Time in which the same sound is not reported again.",
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
            help="A sound that goes on is captioned after each such time.",
            rich_help_panel=_WHAT,
        ),
    ] = 10.0,
    silence: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="Level of the loudest 0.1 s (dB of full scale) below which there is no sound.",
            rich_help_panel=_WHAT,
        ),
    ] = -60.0,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A file that grows: .jsonl (appended to) or .vtt; repeat it for both.",
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
            "may be in EARWITNESS_MQTT_PASSWORD.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    home_assistant: Annotated[
        bool,
        typer.Option(
            "--home-assistant",
            help="Announce sensors to Home Assistant over --mqtt, one for each of --on.",
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
            help="Start this program for each report, without a shell: 'notify-send {text}'. Also "
            "{type}, {start}, {end}, {score}, {time}, {source}; JSON on its standard input.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print no reports, errors only.", rich_help_panel=_OUT),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            help="A pocket model, a model folder, or owner/name of the Hugging Face hub.",
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
    """Listens, and says what it hears as it happens.

    A caption comes within two seconds of the end of a sound, or every 10 s of
    one that goes on; an event when it begins and when it is over. A stream
    that breaks off is tried again. Ctrl-C ends it.

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
