"""Texts without secrets, before anybody sees them: a provider's error may echo what we sent it, written in another way. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

_SLASH = r"(?:\\|%(?:25)*5[Cc])"  # a backslash, also in an address
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[\w.~+/=-]+", re.IGNORECASE)  # a server that echoes our headers


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, however they are written, and without what looks like credentials."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = _written(secret).sub("***", text)
    return _CREDENTIALS.sub(r"\1 ***", text)


@lru_cache(maxsize=1000)
def _written(secret: str) -> re.Pattern[str]:
    """How a secret may look in an answer that echoes it: as it is, escaped for JSON, addresses or HTML, and again; in base64."""
    ways = [_spelled(secret), secret.encode().hex()]
    if len(secret) >= 8:
        # In base64 of something longer, such as "name:secret", it looks in one of three ways, less its first and last characters.
        for before in range(3):
            whole = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
            odd = (before + len(secret.encode())) % 3
            ways.append(_spelled(whole[(0, 2, 3)[before] : len(whole) - (1 if odd else 0)]) + r"[\w+/=-]*")
    return re.compile("|".join(ways))


def _spelled(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else _character(c) for c in text)


def _character(c: str) -> str:
    octets = "".join(f"%(?:25)*(?i:{octet:02x})" for octet in c.encode())
    words = c.encode("utf-16-be").hex()
    units = rf"{_SLASH}*".join(rf"u(?i:{words[at : at + 4]})" for at in range(0, len(words), 4))
    safe = {"+": "|-", "/": "|_", " ": r"|\+"}.get(c, "")  # base64 for addresses; a form's space
    return rf"(?:{_SLASH}*(?:{re.escape(c)}|{octets}|{units}|&(?:amp;)*#?\w{{1,8}};{safe}))"
