"""What a package says of the place where mailrider is hosted, which only whoever builds it knows.

    MAILRIDER_URL=https://git.example.org/mailrider python -m hatchling build

With that the package has its URLs, and the links in README are whole ones: pages of an index show README alone.
Without it README is left as it is, and no place is named.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "MAILRIDER_URL"
BRANCH = "blob/main"
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)]+)\)")


class Hook(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See hatchling."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        url = os.environ.get(VARIABLE, "").rstrip("/")
        if url:
            text = _LINK.sub(rf"]({url}/{BRANCH}/\1)", text)
            metadata["urls"] = {
                "Source": url,
                "Documentation": f"{url}/{BRANCH}/docs/guide.md",
                "Changelog": f"{url}/{BRANCH}/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
