"""How the package is built: README.md for the package index, which has no files to link to."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = "https://github.com/earwitness/earwitness/blob/main/"
FILES = "https://raw.githubusercontent.com/earwitness/earwitness/main/"


class CustomMetadataHook(MetadataHookInterface):
    """Adds the field `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Links and pictures become addresses in the repository."""
        text = Path(self.root, "README.md").read_text("utf-8")
        text = re.sub(r"\]\((?!https?:|#)", f"]({PAGES}", text)
        text = re.sub(r'\b(src|srcset)="(?!https?:)', rf'\1="{FILES}', text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
