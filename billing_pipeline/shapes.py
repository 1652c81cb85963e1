"""JSON texts as msgspec's structs, for several threads at once.

msgspec looks at the fields of a struct when one is read for the first time, and does so without a lock (0.22): a thread that
reads the same kind meanwhile finds half of them, and the process dies of it. So one thread at a time looks.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from threading import Lock
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

_looking = Lock()


def read(text: bytes | msgspec.Raw, kind: type[T], *, strict: bool = True) -> T:
    """`text` as `kind`, a struct or a list of them; `strict`: a number does not come as text.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: it is built otherwise.
    """
    with _looking:
        decoder = _decoder(cast("Hashable", kind), strict)
    found: T = decoder.decode(text)
    return found


@cache
def _decoder(kind: Hashable, strict: bool) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=strict)
