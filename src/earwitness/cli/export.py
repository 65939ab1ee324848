"""`earwitness export`: a model that captions without torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[
        str, typer.Argument(help="A model folder, a pocket model, or owner/name on the hub.")
    ],
    out: Annotated[
        Path, typer.Argument(help="A new folder, or the model's own folder to add graphs to it.")
    ],
    dtype: Annotated[
        Literal["float16", "float32"],
        typer.Option(help="Number format of stored weights; graphs compute in float32."),
    ] = "float16",
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            help="Sound to compare captions on. Repeatable. Default: 20 synthetic sounds (noise "
            "and tones).",
        ),
    ] = None,
    int8: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOUNDS",
            help="Also export an int8 encoder, which cuts captioning time to about two thirds. It "
            "is calibrated on these sounds, at least 16: a file, folder or glob. Repeatable.",
        ),
    ] = None,
) -> None:
    """Writes a model folder with ONNX graphs, so that captioning does not need torch.

    Weights are stored once, as safetensors, which the graphs read: the folder can still be
    trained. LoRA weights are merged. The captions of the model and of its graphs are compared,
    and the folder is kept only if they are the same.

    Works for models with the CNN encoder, alone or inside a dual encoder, a two_stream, linear or
    link prefix, and a Llama of up to 500 M weights.

    Examples:

        earwitness export runs/finetune_pocket/best birds

        earwitness caption dawn.wav --model birds
    """
    from earwitness.captioning.sources import find
    from earwitness.export.model import export_model

    sounds = [source.audio for source in find(int8 or [])]
    found, whole = export_model(model, out, dtype, check or [], sounds)
    typer.echo(
        f"{out}: {found.same} of {found.sounds} captions match the model's; their scores differ "
        f"by at most {found.furthest:.1g}"
    )
    if whole is not None:
        typer.echo(f"{out}: {whole} of {found.sounds} captions match the model's in int8")
