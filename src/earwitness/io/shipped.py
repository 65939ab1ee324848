"""Files that ship with the code: examples and recipes."""

from importlib import resources
from pathlib import Path


def shipped(kind: str) -> Path | None:
    """The folder `kind` ("examples", "recipes") of an installed package or a checkout; None if
    there is none.
    """
    package = Path(str(resources.files("earwitness")))
    places = (package / kind, package.parent.parent / kind)
    return next((place for place in places if place.is_dir()), None)
