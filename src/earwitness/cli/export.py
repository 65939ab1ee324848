"""`earwitness export`: a model that captions without torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[
        str, typer.Argument(help="A model folder, a pocket model, or owner/name of the hub.")
    ],
    out: Annotated[
        Path, typer.Argument(help="New folder, or the model's own to add the graphs there.")
    ],
    dtype: Annotated[
        Literal["float16", "float32"],
        typer.Option(help="Number format of the stored weights; graphs compute in float32."),
    ] = "float16",
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            help="Sound to compare captions on. Repeatable. Default: 20 synthetic noises and "
            "tones.",
        ),
    ] = None,
    int8: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOUNDS",
            help="Also an encoder in 8-bit integers, with which captions take about two thirds of "
            "the time. Its ranges are measured on these sounds, at least 16: a file, folder or "
            "glob. Repeatable.",
        ),
    ] = None,
) -> None:
    """Writes a model folder with ONNX graphs, with which captioning needs no torch.

    Weights are stored once, as safetensors, from which the graphs read them: the folder can be
    trained on too. LoRA weights are merged. Captions of the model and of its graphs are compared,
    and the folder is kept only where they are the same.

    Fits models with the CNN encoder, alone or inside a dual encoder, a two_stream, linear or link
    prefix, and a Llama of up to 500 M weights.

    Examples:

        earwitness export runs/finetune_pocket/best birds

        earwitness caption dawn.wav --model birds
    """
    from earwitness.captioning.sources import find
    from earwitness.export.model import export_model

    sounds = [source.audio for source in find(int8 or [])]
    found, whole = export_model(model, out, dtype, check or [], sounds)
    typer.echo(
        f"{out}: {found.same} of {found.sounds} captions are the model's own; their scores differ "
        f"by at most {found.furthest:.1g}"
    )
    if whole is not None:
        typer.echo(f"{out}: {whole} of {found.sounds} captions are the model's own in int8")
