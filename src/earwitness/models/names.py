"""Names of models to folders: a path, a pocket model inside the package, or a model on the hub.

Parts of a model may be stored elsewhere. A part that two pocket models share is stored once: the
second folder's `earwitness.json` names the other model, the part, and the SHA-256 of its weights
(`shared`). Such a reference can only point into this package. A part that came from the hub is
named by repository and commit (`parts`).
"""

import hashlib
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from earwitness.errors import CheckpointError
from earwitness.io.digests import sha256_of
from earwitness.io.kinds import is_object
from earwitness.models.hub import HubPart, hub_name, resolve
from earwitness.models.json_files import read_json, read_settings, write_json

POCKET_MODELS = ("pocket-lamb", "pocket-link")
"""models that ship inside the package"""

PARTS = ("encoder", "encoder/audio", "decoder")
"""subfolders of a model folder that may be shared"""


def model_folder(model: Path | str) -> Path:
    """The folder of `model`: a path, the place of a pocket model in the package, or of a model of
    the hub in its cache. Raises CheckpointError if there is no such model.
    """
    if str(model) in POCKET_MODELS:
        folder = Path(str(resources.files("earwitness"))) / "models" / str(model)
        if not folder.is_dir():
            raise CheckpointError(
                f"{model}: not part of this installation; expected a model that "
                "'earwitness models' lists, or a model folder"
            )
        return folder
    folder = Path(model)
    if folder.is_dir():
        return folder
    if str(model).startswith(("hf:", "openai:")):
        raise CheckpointError(
            f"{model}: can caption, but has no parts of earwitness to export or to list events "
            "with; the stage audio_language of earwitness train fine-tunes an hf: model"
        )
    if hub_name(model):
        return resolve(model)
    raise CheckpointError(
        f"{model}: no such model folder; expected a folder, one of {', '.join(POCKET_MODELS)}, or "
        "a model on the Hugging Face hub: owner/name or owner/name@revision"
    )


def weights_version(folder: Path) -> str:
    """Eight hex digits that identify the weights of a model folder."""
    digests = [sha256_of(path) for path in sorted(folder.rglob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:8]


def part_folder(folder: Path, part: str, settings: dict[str, Any]) -> Path:
    """The folder of a `part` of the model in `folder`; `settings` is its `earwitness.json`.

    Raises:
        CheckpointError: a reference points anywhere but to a part of a pocket model or a commit on
            the hub, or to weights that have changed since or cannot be fetched.
    """
    fetched = settings.get("parts", {})
    if is_object(fetched) and part in fetched:
        source = folder / "earwitness.json"
        return resolve(str(read_settings(HubPart, fetched[part], source)))
    shared = settings.get("shared", {})
    reference: object = shared.get(part) if is_object(shared) else shared
    if reference is None:
        return folder / part
    if not (
        is_object(reference)
        and reference.get("model") in POCKET_MODELS
        and reference.get("part") in PARTS
    ):
        raise CheckpointError(
            f"{folder / 'earwitness.json'}: shared part {part!r} is {reference!r}; expected a "
            f"model ({', '.join(POCKET_MODELS)}) and its part ({', '.join(PARTS)})"
        )
    found = model_folder(reference["model"]) / reference["part"]
    if _digest(found) != reference.get("sha256"):
        raise CheckpointError(
            f"{folder}: shares {part!r} with {found}, whose weights are missing or have changed"
        )
    return found


def share_part(folder: Path, part: str, model: str, its_part: str) -> None:
    """Replaces `part` of the model in `folder` with a reference to the same weights in a pocket
    model.

    Raises:
        CheckpointError: the weights differ in any byte.
    """
    other = model_folder(model) / its_part
    digest = _digest(folder / part)
    if digest is None or digest != _digest(other):
        raise CheckpointError(f"{folder / part} and {other} do not hold the same weights")
    settings = read_json(folder / "earwitness.json")
    reference = {"model": model, "part": its_part, "sha256": digest}
    settings["shared"] = {**settings.get("shared", {}), part: reference}
    write_json(folder / "earwitness.json", settings)
    shutil.rmtree(folder / part)


def _digest(folder: Path) -> str | None:
    weights = folder / "model.safetensors"
    return sha256_of(weights) if weights.is_file() else None
