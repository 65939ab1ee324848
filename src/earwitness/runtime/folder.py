"""The files of a model folder that captioning without torch needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earwitness.caption import Decoding
from earwitness.errors import CheckpointError, pip_install
from earwitness.io.kinds import is_object
from earwitness.models.json_files import read_json, read_settings
from earwitness.models.names import model_folder, part_folder
from earwitness.models.tensors import check_inside
from earwitness.runtime.settings import FORMAT, GRAPHS, INT8, RuntimeSettings

_PARTS = ("encoder", "encoder/audio", "decoder")


@dataclass(frozen=True)
class ModelFiles:
    """Where everything is, and what the folder says about itself."""

    folder: Path
    name: str
    card: dict[str, Any]
    decoding: Decoding
    max_seconds: float
    runtime: RuntimeSettings
    places: dict[str, Path]
    """weight files by the names that graphs use for them"""
    tokenizer: Path

    @property
    def audio_folder(self) -> Path:
        """The folder of the frame encoder, which may be inside an embedding encoder."""
        part = "encoder" if self.runtime.windows is None else "encoder/audio"
        return self.places[f"{part}/model.safetensors"].parent

    @classmethod
    def of(cls, model: Path | str) -> "ModelFiles":
        """The files of `model`: a folder, a pocket model by name, or one from the hub.

        Raises:
            CheckpointError: the folder is missing or damaged, or was not exported.
        """
        folder = model_folder(model)
        settings = read_json(folder / "earwitness.json")
        if not (folder / "runtime.json").is_file():
            raise CheckpointError(
                f"{folder}: was not exported to ONNX, so captioning with it needs torch: "
                f"{pip_install('train')}"
            )
        written = read_json(folder / "runtime.json")
        version = written.get("format")
        if type(version) is not int or version != FORMAT:
            raise CheckpointError(
                f"{folder / 'runtime.json'}: format {version!r}; this version reads {FORMAT}"
            )
        runtime = read_settings(RuntimeSettings, written, folder / "runtime.json")
        if set(runtime.graphs) - {INT8} != set(GRAPHS):
            raise CheckpointError(
                f"{folder / 'runtime.json'}: names the graphs {', '.join(sorted(runtime.graphs))}; "
                f"expected {', '.join(GRAPHS)}"
            )
        parts = {part: part_folder(folder, part, settings) for part in _PARTS}
        places = {f"{part}/model.safetensors": parts[part] / "model.safetensors" for part in _PARTS}
        places["prefix.safetensors"] = folder / "prefix.safetensors"
        _check_inside(folder, places, parts["decoder"] / "tokenizer.json")
        config = settings.get("config")
        own = config if is_object(config) else {}
        card = settings.get("card")
        return cls(
            folder=folder,
            name=str(settings.get("name", folder.name)),
            card=card if is_object(card) else {},
            decoding=read_settings(Decoding, own.get("decoding"), folder / "earwitness.json"),
            max_seconds=_max_seconds(own, folder),
            runtime=runtime,
            places=places,
            tokenizer=parts["decoder"] / "tokenizer.json",
        )


def _max_seconds(config: dict[str, Any], folder: Path) -> float:
    value = config.get("max_seconds", 3600.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise CheckpointError(
            f"{folder / 'earwitness.json'}: max_seconds is {value!r}; expected seconds above 0"
        )
    return float(value)


def _check_inside(folder: Path, places: dict[str, Path], tokenizer: Path) -> None:
    """Raises CheckpointError if a file that is read is a link out of its folder."""
    graphs = [folder / f"{name}.onnx" for name in (*GRAPHS, INT8)]
    for path in (*places.values(), *graphs, tokenizer):
        if path.exists() or path.is_symlink():
            check_inside(path.parent, path)
