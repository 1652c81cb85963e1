"""What asking a provider comes to: a complete answer, or why there is none.

Without the client that asks (`transport`): importing it takes 0.07 s, and whoever only reads answers can do without, unless the
provider speaks to it in its own way, as Talkdesk's does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


class Refused(Exception):
    """The provider will not answer this request, and asking again cannot help: credentials, scope, parameters."""

    rerun = "no"
    remedy = "Mend what the answer names (key, scope, list of allowed addresses, parameters), then refresh the month"

    def __init__(self, message: str, status: int, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Unavailable(Exception):
    """The provider did not answer, although asked several times; a later run may succeed."""

    rerun = "yes"
    remedy = "If it lasts, look at the provider's status page and at this machine's network"


class UnexpectedAnswer(Exception):
    """An answer with a good status that is not what the provider's page promises."""

    rerun = "once"
    remedy = "If it stays, the API has changed or something answers in its place: compare with the provider's page"


@dataclass(frozen=True)
class Answer:
    """A complete answer with status 2xx.

    Attributes:
        body: whole JSON.
        request: method, path and parameters.
        received_at: when it was complete.
        document: what the decoder that came with the request made of the body, or the error with which it refused.
    """

    status: int
    body: bytes
    request: str
    received_at: datetime
    document: Any = None

    def read(self) -> Any:
        """What the decoder made of the body.

        Raises:
            msgspec.ValidationError, UnicodeDecodeError: it is built otherwise.
        """
        if isinstance(self.document, Exception):
            raise self.document
        return self.document
