"""The static page: its own files, a model's graphs and weights, and onnxruntime-web beside them."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from earwitness.captioning.heard import (
    FEWEST,
    LEAST_PROBABILITY,
    LEAST_SUPPORT,
    SURE_PROBABILITY,
    WEIGHT,
)
from earwitness.errors import ConfigError, MissingDependencyError, one_line
from earwitness.models.json_files import read_json, read_settings
from earwitness.models.sound_classes import PART_S, SETTINGS, WEIGHTS, ClassHeadConfig
from earwitness.runtime.folder import ModelFiles
from earwitness.runtime.sessions import read_known
from earwitness.runtime.settings import GRAPHS
from earwitness.runtime.wire import external_weights

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""of the tarball that the npm registry serves for that version"""

_LIBRARY = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_NPM_SECONDS = 300


def write_page(model: Path | str, folder: Path, library: Path | None = None) -> None:
    """Writes the page for `model` into `folder`, ready for any static web server.

    `library` is the npm tarball of onnxruntime-web; None lets npm fetch it.

    Raises:
        CheckpointError: the model cannot be exported. ConfigError: `folder` cannot be written, or
            `library` is not the tarball expected. MissingDependencyError: there is no npm.
    """
    files = ModelFiles.of(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy_static(folder)
        _write_model(files, folder / "model")
        with tempfile.TemporaryDirectory(prefix="earwitness-") as place:
            _unpack(library or _fetched(Path(place)), folder / "onnxruntime")
        _write_service_worker(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({one_line(error)})") from None


def _copy_static(folder: Path) -> None:
    for item in resources.files("earwitness.browser").joinpath("static").iterdir():
        (folder / item.name).write_bytes(item.read_bytes())


def _write_model(files: ModelFiles, folder: Path) -> None:
    """The graphs, the weight files that they name, and `model.json`, which the page reads first."""
    weights = {
        name: sorted({part.location for part in external_weights(read_known(path, digest))})
        for name in GRAPHS
        for path, digest in [(files.folder / f"{name}.onnx", files.runtime.graphs[name])]
    }
    needed = sorted({location for locations in weights.values() for location in locations})
    sources = {f"{name}.onnx": files.folder / f"{name}.onnx" for name in weights}
    sources |= {location: files.places[location] for location in needed}
    sources["decoder/tokenizer.json"] = files.tokenizer
    head = _classes(files)
    if head is not None:
        sources[head["file"]] = files.audio_folder / WEIGHTS
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    facts = {
        "name": files.name,
        "decoding": files.decoding.model_dump(mode="json"),
        "runtime": files.runtime.model_dump(mode="json"),
        "weights": weights,
        "classes": head,
        "files": {name: source.stat().st_size for name, source in sources.items()},
    }
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")


def _classes(files: ModelFiles) -> dict[str, Any] | None:
    """The class head, and how captions are chosen by it; None for a model without one."""
    if not (files.audio_folder / SETTINGS).is_file():
        return None
    path = files.audio_folder / SETTINGS
    config = read_settings(ClassHeadConfig, read_json(path), path)
    return config.model_dump(mode="json") | {
        "file": f"encoder/{WEIGHTS}",
        "part_s": PART_S,
        "candidates": FEWEST,
        "weight": WEIGHT,
        "least_support": LEAST_SUPPORT,
        "least_probability": LEAST_PROBABILITY,
        "sure_probability": SURE_PROBABILITY,
    }


def _fetched(place: Path) -> Path:
    """The tarball, as npm fetches it."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"npm is not installed; it fetches {PACKAGE}. Install Node.js, or name a tarball of "
            f"{PACKAGE} {VERSION} with --onnxruntime"
        )
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(place)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_SECONDS)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"npm did not fetch {PACKAGE} within {_NPM_SECONDS} s") from None
    found = sorted(place.glob("*.tgz"))
    if run.returncode or not found:
        raise ConfigError(f"npm could not fetch {PACKAGE} {VERSION} ({one_line(run.stderr)})")
    return found[0]


def _unpack(tarball: Path, folder: Path) -> None:
    """The three files of the library that the page uses; the tarball must be the pinned one."""
    if not tarball.is_file():
        raise ConfigError(f"{tarball}: no such file; expected a tarball of {PACKAGE} {VERSION}")
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise ConfigError(f"{tarball}: is not the tarball of {PACKAGE} {VERSION} on npm")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tarball) as archive:
        for name in _LIBRARY:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())


def _write_service_worker(folder: Path) -> None:
    """`sw.js` with the list of files to keep, and a version that changes with any of them."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "sw.js")
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    names = ["./", *(path.relative_to(folder).as_posix() for path in paths)]
    text = (folder / "sw.js").read_text(encoding="utf-8")
    text = text.replace("VERSION", digest.hexdigest()[:12]).replace("FILE_LIST", json.dumps(names))
    (folder / "sw.js").write_text(text, encoding="utf-8")
