"""Long runs (`make test-long` sets MAILRIDER_LONG): more examples, more seconds, and the tests marked `long`."""

from __future__ import annotations

import os
from typing import Final

LONG: Final = os.environ.get("MAILRIDER_LONG") == "true"
