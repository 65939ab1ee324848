"""`earwitness doctor`: what this installation can do, what is missing, and how to get it."""

import json
import os
import platform
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Annotated, Literal, NamedTuple

import typer

from earwitness.errors import EarwitnessError, pip_install

CORE = ("caption", "events", "listen", "models", "page")
"""commands that need nothing beyond `pip install earwitness`"""


class Need(NamedTuple):
    """An extra: the commands that do not work without it, and its purpose."""

    extra: str
    commands: tuple[str, ...]
    purpose: str


NEEDS = (
    Need("serve", ("serve",), "the HTTP service"),
    Need("demo", ("serve",), "its web page; not needed with --no-demo"),
    Need("eval", ("evaluate",), "METEOR, SPICE and HTML reports"),
    Need("plots", ("gap",), "figures, reports, separability"),
    Need(
        "train",
        ("train", "export", "gap", "reproduce", "scenes"),
        "training, export, models in torch, embeddings of sounds",
    ),
    Need("live", (), "listen with a microphone; pipes and streams need no extra"),
    Need("mqtt", (), "listen --mqtt: reports to a broker"),
    Need("speech", (), "caption --speech: subtitles of speech and sounds"),
    Need("ray", (), "caption --engine ray: a corpus on a cluster"),
    Need("endpoint", (), "models behind an OpenAI-compatible server"),
    Need("hub", (), "training on data sets from the Hugging Face hub"),
    Need("qlora", (), "language models in 4 bits"),
    Need("umap", (), "gap --projection umap"),
    Need("wandb", (), "training logs in Weights & Biases"),
)


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, and how to get it if it is missing."""

    section: str
    name: str
    state: Literal["ok", "missing", "optional"]
    """`optional` is also missing, but every command works without it"""
    detail: str
    commands: tuple[str, ...] = ()
    fix: str = ""


def doctor(
    commands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="Check only what these commands need.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows what is installed, what is missing for which command, and how to get it.

    Loads the models, and checks Java and torch. Nothing is downloaded. The exit
    code is 1 if captioning cannot work, or if a command that you name lacks a part.

    Examples:

      earwitness doctor

      earwitness doctor serve train
    """
    known = {*CORE, *(command for need in NEEDS for command in need.commands)}
    if unknown := sorted(set(commands or ()) - known):
        raise typer.BadParameter(
            f"{unknown[0]!r}: expected one of {', '.join(sorted(known))}", param_hint="COMMAND"
        )
    wanted = {*CORE, *(commands or ())}
    found = list(findings(wanted if commands else known))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _print(found)
    if any(one.state == "missing" and wanted & {*one.commands} for one in found):
        raise typer.Exit(1)


def findings(commands: Collection[str]) -> Iterator[Finding]:
    """The findings on what these commands need, section by section."""
    yield from _models()
    everything = {command for need in NEEDS for command in need.commands} <= {*commands}
    yield from (_extra(n) for n in NEEDS if everything or {*n.commands} & {*commands})
    yield _page()
    yield _readers()
    yield _cpu()
    if "train" in commands:
        yield _gpu()
    if "evaluate" in commands:
        yield from _metrics()


def _print(found: list[Finding]) -> None:
    system = f"{platform.system()} {platform.machine()}"
    typer.echo(
        f"earwitness {metadata.version('earwitness')}, Python {platform.python_version()}, {system}"
    )
    section = ""
    for one in found:
        if one.section != section:
            section = one.section
            typer.echo(f"\n{section}")
        color = {"ok": "green", "missing": "red", "optional": "yellow"}[one.state]
        state = typer.style(f"{one.state:8}", fg=color)
        typer.echo(f"  {state}  {one.name}: {one.detail}")
        if one.fix:
            typer.echo(f"            {one.fix}")


def _models() -> Iterator[Finding]:
    """Loads each shipped model."""
    from earwitness.captioning.captioner import Captioner
    from earwitness.models.names import POCKET_MODELS, model_folder, weights_version

    for name in POCKET_MODELS:
        try:
            Captioner.load(name, "cpu")
            detail = f"loads; weights {weights_version(model_folder(name))}"
            yield Finding("Models", name, "ok", detail, CORE)
        except (EarwitnessError, ImportError, OSError) as error:
            yield Finding("Models", name, "missing", str(error), CORE)


def _extra(need: Need) -> Finding:
    """Whether the packages of an extra are installed, in suitable versions."""
    from packaging.requirements import Requirement

    missing: list[str] = []
    for text in metadata.requires("earwitness") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": need.extra}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name}{requirement.specifier} instead of {version}")
    name = f"{', '.join(need.commands)} [{need.extra}]" if need.commands else f"[{need.extra}]"
    if not missing:
        return Finding("Commands", name, "ok", need.purpose, need.commands)
    detail = f"{need.purpose}; not installed: {', '.join(missing)}"
    fix = pip_install(need.extra)
    if "torch" in missing:
        fix += (
            "\n            without a GPU first: pip install torch "
            "--index-url https://download.pytorch.org/whl/cpu"
        )
    state = "missing" if need.commands else "optional"
    return Finding("Commands", name, state, detail, need.commands, fix)


def _page() -> Finding:
    from shutil import which

    if which("npm"):
        return Finding("Commands", "page", "ok", "npm, which downloads onnxruntime-web")
    detail = "no npm, which downloads onnxruntime-web"
    fix = "install Node.js, or give the package's tarball with --onnxruntime"
    return Finding("Commands", "page", "optional", detail, fix=fix)


def _readers() -> Finding:
    """The libraries that read audio and video files."""
    section, name = "Sound and video files", "readers"
    try:
        import av
        import soundfile
    except (ImportError, OSError) as error:
        return Finding(section, name, "missing", str(error), CORE, "pip install av soundfile")
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    detail = (
        f"FFmpeg's libraries (libavcodec {codec}, PyAV {av.__version__}), libsndfile "
        f"{soundfile.__libsndfile_version__}; the program ffmpeg is not needed"
    )
    return Finding(section, name, "ok", detail, CORE)


def _cpu() -> Finding:
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return Finding("Devices", "cpu", "missing", str(error), CORE, "pip install onnxruntime")
    detail = f"{os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}"
    return Finding("Devices", "cpu", "ok", detail, CORE)


def _gpu() -> Finding:
    """The GPUs that torch finds."""
    try:
        import torch
    except (ImportError, OSError):
        return Finding("Devices", "gpu", "optional", "needs torch", fix=pip_install("train"))
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("Apple (mps)")
    detail = f"{', '.join(names) or 'none'}; torch {torch.__version__}"
    return Finding("Devices", "gpu", "ok" if names else "optional", detail)


def _metrics() -> Iterator[Finding]:
    """The external parts that caption metrics need."""
    from earwitness.evaluation.doctor import examine

    for part in examine():
        state = "ok" if part.usable else "optional"
        detail = f"{part.detail} (for {', '.join(part.metrics)})"
        yield Finding("Metrics", part.part, state, detail, ("evaluate",))
