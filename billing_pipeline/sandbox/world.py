"""The invented company behind the four bills: its clock, its size, its countries, and chance that always falls the same way."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import NamedTuple, TypeVar

from billing_pipeline.sandbox.faults import Faults

T = TypeVar("T")

COMPANY = "Acme Retail GmbH"
SINCE = date(2025, 1, 1)
"""The company's first day with every provider: nothing is billed before it."""


class Country(NamedTuple):
    """Where Acme has customers."""

    code: str
    """ISO 3166-1 alpha-2."""
    name: str
    prefix: str
    """The dialling prefix, without +."""
    networks: tuple[tuple[str, str], ...]
    """MCC+MNC and name."""
    weight: int
    """Its part of Acme's traffic; the weights add up to about 1000."""


COUNTRIES = (
    Country("DE", "Germany", "49", (("26201", "Telekom"), ("26202", "Vodafone"), ("26203", "O2")), 240),
    Country("US", "United States", "1", (("310260", "T-Mobile"), ("311480", "Verizon"), ("310410", "AT&T")), 190),
    Country("GB", "United Kingdom", "44", (("23410", "O2"), ("23430", "EE"), ("23415", "Vodafone")), 110),
    Country("MX", "Mexico", "52", (("334020", "Telcel"), ("334050", "AT&T")), 90),
    Country("FR", "France", "33", (("20801", "Orange"), ("20810", "SFR")), 70),
    Country("BR", "Brazil", "55", (("72406", "Vivo"), ("72405", "Claro")), 60),
    Country("ES", "Spain", "34", (("21407", "Movistar"), ("21401", "Vodafone")), 45),
    Country("IT", "Italy", "39", (("22201", "TIM"), ("22210", "Vodafone")), 40),
    Country("ID", "Indonesia", "62", (("51010", "Telkomsel"), ("51011", "XL Axiata")), 35),
    Country("SG", "Singapore", "65", (("52501", "Singtel"), ("52503", "M1")), 25),
    Country("PL", "Poland", "48", (("26002", "T-Mobile"), ("26003", "Orange")), 25),
    Country("NL", "Netherlands", "31", (("20408", "KPN"), ("20404", "Vodafone")), 20),
    Country("IN", "India", "91", (("40445", "Airtel"), ("405840", "Jio")), 20),
    Country("AT", "Austria", "43", (("23201", "A1"), ("23203", "Magenta")), 15),
    Country("CH", "Switzerland", "41", (("22801", "Swisscom"), ("22802", "Sunrise")), 10),
    Country("CA", "Canada", "1", (("302720", "Rogers"), ("302610", "Bell")), 10),
    Country("MY", "Malaysia", "60", (("50219", "Celcom"), ("50212", "Maxis")), 8),
    Country("PH", "Philippines", "63", (("51502", "Globe"), ("51503", "Smart")), 8),
    Country("TH", "Thailand", "66", (("52003", "AIS"), ("52005", "dtac")), 7),
    Country("AU", "Australia", "61", (("50501", "Telstra"), ("50502", "Optus")), 6),
    Country("PT", "Portugal", "351", (("26801", "Vodafone"), ("26806", "MEO")), 6),
    Country("BE", "Belgium", "32", (("20601", "Proximus"), ("20610", "Orange")), 6),
    Country("SE", "Sweden", "46", (("24001", "Telia"), ("24007", "Tele2")), 5),
    Country("DK", "Denmark", "45", (("23801", "TDC"), ("23802", "Telenor")), 4),
    Country("ZA", "South Africa", "27", (("65501", "Vodacom"), ("65510", "MTN")), 4),
    Country("CO", "Colombia", "57", (("732101", "Claro"), ("732123", "Movistar")), 4),
    Country("CL", "Chile", "56", (("73001", "Entel"), ("73002", "Movistar")), 3),
    Country("AE", "United Arab Emirates", "971", (("42402", "Etisalat"), ("42403", "du")), 3),
    Country("TR", "Türkiye", "90", (("28601", "Turkcell"), ("28602", "Vodafone")), 3),
    Country("JP", "Japan", "81", (("44010", "NTT Docomo"), ("44020", "SoftBank")), 2),
    Country("PR", "Puerto Rico", "1787", (("330110", "Claro"),), 2),
    Country("NZ", "New Zealand", "64", (("53001", "Vodafone"),), 2),
    Country("IE", "Ireland", "353", (("27201", "Vodafone"),), 2),
    Country("NO", "Norway", "47", (("24201", "Telenor"),), 2),
    Country("FI", "Finland", "358", (("24491", "Telia"),), 2),
    Country("CZ", "Czechia", "420", (("23001", "T-Mobile"),), 2),
    Country("HU", "Hungary", "36", (("21630", "Magyar Telekom"),), 2),
    Country("RO", "Romania", "40", (("22610", "Orange"),), 2),
    Country("GR", "Greece", "30", (("20201", "Cosmote"),), 2),
    Country("PE", "Peru", "51", (("71606", "Movistar"),), 2),
)

PURPOSES = {"authentication": 38, "utility": 34, "marketing": 20, "service": 8}
"""What a message of Acme's is for, in percent: log-in codes, order news, campaigns, answers."""

WEEKDAYS = (96, 94, 98, 104, 122, 112, 74)
"""Monday to Sunday, in percent of an average day: people shop on Fridays and Saturdays."""

SEASONS = (88, 92, 97, 100, 103, 97, 95, 94, 100, 104, 122, 108)
"""January to December, in percent: sales in November, quiet Januaries."""

MONTHLY_GROWTH = Decimal("1.015")


@lru_cache(maxsize=4096)
def pace(day: date) -> Decimal:
    """How busy a day is: 1 is an average day of Acme's first month."""
    months = (day.year - SINCE.year) * 12 + day.month - SINCE.month
    busy = MONTHLY_GROWTH**months * WEEKDAYS[day.weekday()] * SEASONS[day.month - 1] / 10_000
    black_friday = day.month == 11 and day.weekday() == 4 and 23 <= day.day <= 29
    return (busy * 2 if black_friday else busy).quantize(Decimal("0.0001"))


class Clock:
    """The sandbox's time: the real one, or one that stands still where it was put."""

    def __init__(self, instant: datetime | None = None):
        self._instant: datetime | None = None
        self.set(instant)

    def now(self) -> datetime:
        """The instant the providers think it is, aware, in UTC."""
        return self._instant or datetime.now(UTC)

    def set(self, instant: datetime | None) -> None:
        """Stop at `instant`, which must be aware; None is the real time again."""
        if instant is not None and instant.tzinfo is None:
            raise ValueError(f"the sandbox's clock needs a zone: {instant.isoformat()}Z, say")
        self._instant = instant.astimezone(UTC) if instant else None


@dataclass(frozen=True, slots=True)
class Request:
    """One request a provider answered; `account` is "" when the credentials were wrong."""

    provider: str
    account: str
    method: str
    path: str
    """With its query."""


class World:
    """Everything the four providers have in common.

    Args:
        clock: what time it is there.
        scale: multiplies the number of rows, not the prices: 1 is a middling company.
        seed: another seed is another company of the same habits.
    """

    def __init__(self, clock: Clock | None = None, scale: float = 1.0, seed: str = "acme"):
        self.clock = clock or Clock()
        self.scale = scale
        self.seed = seed
        self.enforce_limits = True
        """Whether providers answer 429; their windows run on the real monotonic clock."""
        self.faults = Faults()
        self._faults: dict[str, list[int]] = {}
        self._requests: list[Request] = []
        self._kept: OrderedDict[tuple[object, ...], object] = OrderedDict()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The clock's instant."""
        return self.clock.now()

    def draw(self, *keys: object) -> Random:
        """Chance that falls the same way for the same seed and keys, in every process."""
        text = "\x1f".join([self.seed, *map(str, keys)])
        return Random(int.from_bytes(blake2b(text.encode(), digest_size=8).digest()))  # noqa: S311 - invented bills

    def scaled(self, number: int) -> int:
        """How many of a thing there are at this scale, at least one."""
        return max(1, round(number * self.scale))

    def kept(self, key: tuple[object, ...], build: Callable[[], T]) -> T:
        """`build()`, remembered under `key`, the scale and the seed; the least recently asked for is forgotten.

        `key` must hold all that the result depends on, the state of the clock included.
        """
        whole = (self.scale, self.seed, *key)
        with self._lock:
            if whole in self._kept:
                self._kept.move_to_end(whole)
                return self._kept[whole]  # type: ignore[return-value]
        value = build()
        with self._lock:
            self._kept[whole] = value
            while len(self._kept) > max(4, int(64 / max(self.scale, 1))):
                self._kept.popitem(last=False)
        return value

    def fail(self, provider: str, statuses: list[int]) -> None:
        """Let the provider's next answers be these documented errors, in order, whatever is asked."""
        with self._lock:
            self._faults[provider] = list(statuses)

    def fault(self, provider: str) -> int | None:
        """The status the provider's next answer must have; each provider's module asks once per authorised request."""
        with self._lock:
            waiting = self._faults.get(provider)
            return waiting.pop(0) if waiting else None

    def record(self, provider: str, account: str, method: str, path: str) -> None:
        """Remember a request; each provider's module calls this for every request it answers."""
        with self._lock:
            self._requests.append(Request(provider, account, method, path))

    def requests(self, provider: str | None = None) -> list[Request]:
        """The requests so far, oldest first."""
        with self._lock:
            return [request for request in self._requests if provider in (None, request.provider)]
