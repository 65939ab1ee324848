"""Shared fixtures: builders and folders, never committed data."""

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sounds, captions and reference values; skips where it is missing."""
    folder = Path(os.environ.get("EARWITNESS_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder (EARWITNESS_DATA), not found at {folder}")
    return folder
