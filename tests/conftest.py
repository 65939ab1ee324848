"""Shared fixtures: builders and folders, never committed data."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# The same examples at every run; `pytest --hypothesis-profile=explore` tries others, and more.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", max_examples=2000)
settings.load_profile("same")

_ROOT = Path(__file__).resolve().parent.parent


def _shaped() -> list[str]:
    """The modules that name shapes of arrays."""
    source = _ROOT / "src"
    paths = [p for p in source.rglob("*.py") if "from jaxtyping" in p.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in paths]


# beartype checks the shapes at every call. Other modules have only types, which pyright checks:
# checking those here as well would slow down every import and every call.
install_import_hook(_shaped(), "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sounds, captions and reference values; skips where it is missing."""
    folder = Path(os.environ.get("EARWITNESS_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder (EARWITNESS_DATA), not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def hub_folders(tmp_path_factory) -> dict[str, Path]:
    """Tiny random checkpoints in the layouts of the hub, by owner/name; only to be read."""
    from hub_checkpoints import make_parts

    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def hub_cache(hub_folders, tmp_path, monkeypatch) -> Path:
    """A cache of the hub that holds them all, and nobody to ask."""
    from hub_checkpoints import publish_all
    from hub_parts import offline

    return offline(publish_all(hub_folders, tmp_path / "cache"), monkeypatch)
