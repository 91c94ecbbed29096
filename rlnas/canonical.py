"""Text that is the same for equal data, and its hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(data: Any) -> str:
    """JSON text that is the same for equal data: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(text: str) -> str:
    """SHA-256 of a text's UTF-8 form, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
