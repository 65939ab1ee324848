"""A whole model as a folder that captions without torch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.errors import CheckpointError, ConfigError
from earwitness.export.check import Compared, agreeing, check_sounds, compare
from earwitness.export.decoder import LlamaSizes
from earwitness.export.folder import ranges_of, write_graphs
from earwitness.export.ranges import spread
from earwitness.models.json_files import read_json
from earwitness.models.names import model_folder, part_folder
from earwitness.runtime import RuntimeCaptioner
from earwitness.runtime.settings import INT8
from earwitness.system.captioner import TorchCaptioner

LARGEST = 500_000_000
"""the most weights of a language model; a larger one belongs on a GPU"""

Dtype = Literal["float16", "float32"]


def export_model(
    model: Path | str,
    out: Path,
    dtype: Dtype = "float16",
    sounds: Sequence[Path] = (),
    int8: Sequence[AudioSource] = (),
) -> tuple[Compared, int | None]:
    """Writes `model` to the folder `out` with its ONNX graphs, with LoRA weights merged and parts
    from the hub copied, and compares captions on `sounds`; `out` may be the model's own folder,
    whose weights are kept. With sounds in `int8`, also writes an int8 graph, and the second result
    is how many of its captions match the model's; else None.

    Raises:
        ConfigError: a part of the model cannot be exported or is too large, captions differ, or
            `out` is not empty. CheckpointError: the model cannot be read.
        AudioError: a sound cannot be read.
    """
    folder = model_folder(model)
    own = out.resolve() == folder.resolve()
    if not own and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected a new or empty folder, or the model's own")
    _check_language_model(folder)
    captioner = TorchCaptioner.load(folder)
    listed = check_sounds(sounds, captioner.sample_rate)
    heard = [audio.load(one, captioner.sample_rate) for one in spread(int8)]
    if own:
        write_graphs(out, ranges=ranges_of(out, heard) if heard else ())
        return _compared(captioner, out, listed)
    try:
        half = torch.float16 if dtype == "float16" else torch.float32
        captioner.save(out, half, merge=_has_lora(captioner) or None, refer=False)
        write_graphs(out, ranges=ranges_of(out, heard) if heard else ())
        return _compared(captioner, out, listed)
    except (ConfigError, CheckpointError):
        shutil.rmtree(out, ignore_errors=True)
        raise


def _compared(
    captioner: TorchCaptioner, out: Path, sounds: Sequence[Float[np.ndarray, " _"]]
) -> tuple[Compared, int | None]:
    runtime = RuntimeCaptioner.load(out)
    found = compare(captioner, runtime, sounds)
    if not (out / f"{INT8}.onnx").is_file():
        return found, None
    with runtime.precision("int8"):
        return found, agreeing(captioner, runtime, sounds)


def _check_language_model(folder: Path) -> None:
    """Fails early, before gigabytes of unsuitable weights are read.

    Raises:
        ConfigError: the language model is of another type, or too large.
    """
    settings = read_json(folder / "earwitness.json")
    place = part_folder(folder, "decoder", settings)
    sizes = LlamaSizes.of(read_json(place / "config.json"))
    if sizes.weights > LARGEST:
        raise ConfigError(
            f"{folder}: a language model of {sizes.weights / 1e6:,.0f} M weights is too large for "
            f"captioning without torch; expected at most {LARGEST / 1e6:,.0f} M"
        )


def _has_lora(captioner: TorchCaptioner) -> bool:
    return hasattr(captioner.decoder.model, "merge_and_unload")
