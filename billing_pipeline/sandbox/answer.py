"""JSON answers whose numbers are a Decimal's own digits: a float would invent some."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from starlette.responses import Response

_ENCODER = msgspec.json.Encoder(decimal_format="number")


def plain(amount: Decimal) -> Decimal:
    """The same amount without trailing zeros or an exponent: 5.60740 is 5.6074, 1E+2 is 100."""
    return Decimal(f"{amount.normalize():f}")


class ExactJson(Response):
    """A JSON response; Decimals become numbers, digit for digit."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None):
        super().__init__(content, status_code=status_code, headers=headers)

    def render(self, content: Any) -> bytes:
        """`content` as JSON."""
        return _ENCODER.encode(content)
