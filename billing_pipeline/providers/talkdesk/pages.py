"""A page of Talkdesk: how it is built, where its links are, and which of its rows came before."""

from __future__ import annotations

import json
from array import array
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ... import shapes
from ...provider import Page, Pages
from ...rows import UnexpectedShape

T = TypeVar("T")


class Embedded(msgspec.Struct):
    """`_embedded`: the rows, as JSON text."""

    usage: msgspec.Raw


class Answer(msgspec.Struct, kw_only=True):
    """One page of any list, its rows left aside.

    Links stand in `_links` by the platform's rule, and at the top level by the page's own list of fields.
    """

    links: dict[str, Any] | None = msgspec.field(name="_links", default=None)
    next: Any = None
    own: Any = msgspec.field(name="self", default=None)
    count: int | None = None  # this and below: stated by the sibling lists of the API, not by this page
    page: int | None = None
    total: int | None = None
    total_pages: int | None = None

    def link(self, name: str, top_level: Any) -> str:
        """The link's address as written: `_links` first, an object or plain text; empty when there is none."""
        for link in ((self.links or {}).get(name), top_level):
            href = link.get("href") if isinstance(link, dict) else link
            if href is not None and not isinstance(href, str):
                raise UnexpectedShape(f"the link {name!r} is neither text nor an object with an href")
            if href:
                return href
        return ""


class UsageAnswer(Answer, kw_only=True):
    """One page of the usage list."""

    embedded: Embedded = msgspec.field(name="_embedded")


class Identified(msgspec.Struct):
    """Of a row, its id alone."""

    id: str | None = None


def answered(page: Page) -> UsageAnswer:
    """The page, its rows left as text."""
    return decoded(page, page.read(), UsageAnswer, strict=False)  # a count may come as text


def decoded(page: Page, text: bytes | msgspec.Raw, kind: type[T], *, strict: bool = True) -> T:
    """JSON of this page as `kind`; anything else is an UnexpectedShape that names the page."""
    try:
        return shapes.read(text, kind, strict=strict)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedShape(f"page {page.number} is not built as Talkdesk's page says: {error}") from error


_MEASURES = {"id", "price", "number_of_units", "total_amount"}


def identities(page: Page, listed: msgspec.Raw) -> list[int]:
    """Of each row a hash of what it is of: all but its measures, which may grow from walk to walk, and its id."""
    rows = decoded(page, listed, list[dict[str, msgspec.Raw]])
    return [hash(tuple(sorted((name, bytes(v)) for name, v in row.items() if name not in _MEASURES))) for row in rows]


def repeated(pages: Pages) -> frozenset[tuple[int, int]]:
    """(page number, row index) of every row that an earlier one repeats: same id, same content.

    The list has no snapshot: a row that appears during the walk pushes the others over page borders. The one rule for
    what counts once, so that `parse` and `statement` leave out the same rows. Ids are not compared across traversals.

    Raises:
        UnexpectedShape: the same id with another content. Which of the two is right nobody can know.
    """
    hashes = array("q")  # 8 bytes a row, not the ids themselves: a walk may be long
    for page in pages:
        rows = decoded(page, answered(page).embedded.usage, list[Identified])
        hashes.extend(hash(row.id) for row in rows if row.id is not None)
    counts = pc.value_counts(pa.Array.from_buffers(pa.int64(), len(hashes), [None, pa.py_buffer(hashes)]))
    suspects = set(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())
    if not suspects:
        return frozenset()
    first: dict[str, tuple[str, Any]] = {}
    again = set()
    for page in pages:
        for index, raw in enumerate(decoded(page, answered(page).embedded.usage, list[msgspec.Raw])):
            row_id = shapes.read(raw, Identified).id
            if row_id is None or hash(row_id) not in suspects:
                continue
            where = f"page {page.number}, row {index}"
            try:
                content = json.loads(bytes(raw), parse_float=Decimal, parse_int=Decimal)
            except (ValueError, RecursionError) as error:  # msgspec reads over text that it need not decode
                raise UnexpectedShape(f"{where} is not the JSON it should be: {error}") from error
            if row_id not in first:
                first[row_id] = where, content
            elif first[row_id][1] == content:
                again.add((page.number, index))
            else:
                raise UnexpectedShape(
                    f"{where}: id {row_id} also stands at {first[row_id][0]} with another content. The list changed during "
                    "the walk: fetch again; if it stays, ids are not unique and `repeated` must learn a new rule"
                )
    return frozenset(again)
