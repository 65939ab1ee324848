"""A whole model as a folder that captions without torch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from earwitness.errors import CheckpointError, ConfigError
from earwitness.export.check import Compared, check_sounds, compare
from earwitness.export.decoder import LlamaSizes
from earwitness.export.folder import write_graphs
from earwitness.models.json_files import read_json
from earwitness.models.names import model_folder, part_folder
from earwitness.runtime import RuntimeCaptioner
from earwitness.system.captioner import TorchCaptioner

LARGEST = 500_000_000
"""weights of a language model; a larger one belongs on a GPU"""

Dtype = Literal["float16", "float32"]


def export_model(
    model: Path | str, out: Path, dtype: Dtype = "float16", sounds: Sequence[Path] = ()
) -> Compared:
    """Writes `model` to the folder `out` with its ONNX graphs, LoRA weights merged and parts of the
    hub copied, and compares captions; `out` may be the model's own folder, which keeps its weights.

    Raises:
        ConfigError: a part of the model has no ONNX form, or is too large; or captions differ, or
            `out` is not empty. CheckpointError: the model cannot be read. AudioError: nor a sound.
    """
    folder = model_folder(model)
    own = out.resolve() == folder.resolve()
    if not own and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected a new or empty folder, or the model's own")
    _check_language_model(folder)
    captioner = TorchCaptioner.load(folder)
    listed = check_sounds(sounds, captioner.sample_rate)
    if own:
        write_graphs(out)
        return compare(captioner, RuntimeCaptioner.load(out), listed)
    try:
        half = torch.float16 if dtype == "float16" else torch.float32
        captioner.save(out, half, merge=_has_lora(captioner) or None, refer=False)
        write_graphs(out)
        return compare(captioner, RuntimeCaptioner.load(out), listed)
    except (ConfigError, CheckpointError):
        shutil.rmtree(out, ignore_errors=True)
        raise


def _check_language_model(folder: Path) -> None:
    """Refuses what does not fit before gigabytes are read.

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
