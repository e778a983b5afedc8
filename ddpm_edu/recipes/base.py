"""What every recipe shares."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any


def config(recipe: Any) -> dict[str, Any]:
    """The recipe's fields as they come back from a file: plain JSON values."""
    return json.loads(json.dumps(asdict(recipe)))
