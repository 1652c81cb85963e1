"""The made-up month that everybody fetches: the same bytes for the same number of rows, and its exact total. Pure.

One row is one charge: a cost item of YCloud, a usage bucket or other charge of Plivo. Amounts are whole millionths of a
dollar until they are written, so the total is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import product
from string import ascii_uppercase

PERIOD = "2026-05"  # long settled on any clock, so that nothing of it is asked for day by day
FIRST = date(2026, 5, 1)
DAYS = 31
END = FIRST + timedelta(days=DAYS)

REGIONS = ["".join(pair) for pair in product(ascii_uppercase, repeat=2)][:240]
WABAS = [f"1048576{n:08d}" for n in range(40)]
ORIGINS = ("marketing", "utility", "authentication", "service", "marketing_lite", "authentication_international")
PRICES = (25000, 3400, 136500, 55000, 52900, 8500, 62500, 11800, 1400, 28000, 41100, 860)  # millionths of a dollar

# 20 of them unless the month is larger than they have buckets.
SUBACCOUNTS = [f"SABENCHMARK{n:09d}" for n in range(200)]
# Ten rows of which no two are of the same bucket: what comes before country and sub-account, and what comes after.
TRAFFIC = (
    ('"product":"message","type":"sms","direction":"outbound"', ""),
    ('"product":"message","type":"sms","direction":"inbound"', ""),
    (
        '"product":"message","type":"sms","direction":"outbound"',
        ',"error_code":"200","error_reason":"Opt-out block"',
    ),
    ('"product":"message","type":"mms","direction":"outbound"', ""),
    ('"product":"message","type":"whatsapp","direction":"outbound"', ""),
    ('"product":"voice","type":"pstn","direction":"outbound"', ',"hangup_cause":"Normal Hangup"'),
    ('"product":"voice","type":"pstn","direction":"outbound"', ',"hangup_cause":"Busy Line"'),
    ('"product":"voice","type":"pstn","direction":"inbound"', ',"hangup_cause":"Normal Hangup"'),
    ('"product":"zentrunk","type":"pstn","direction":"outbound"', ',"hangup_cause":"Normal Hangup"'),
    ('"product":"message","type":"sms","direction":"outbound"', ',"error_code":"50","error_reason":"Invalid number"'),
)


@dataclass(frozen=True)
class Month:
    """A provider's month.

    Attributes:
        items: JSON text of each element of the list that is paged: YCloud's items, newest day first; Plivo's usage rows,
            oldest day first.
        others: JSON text of each of Plivo's other charges.
        rows: how many charges there are in all of them.
        total: their sum in USD.
    """

    items: list[str]
    others: list[str]
    rows: int
    total: Decimal


def ycloud(rows: int, *, long_averages: bool = False, later: bool = False) -> Month:
    """A month of YCloud with `rows` cost items, three to six per WhatsApp item and one per other item.

    Args:
        rows: up to 1,200,000: 9,000 items a day, which is what paging reaches without dividing a day.
        long_averages: unit prices are averages with all the digits of a double, more than decimal128(38, 18) holds.
        later: as it is stated some weeks later: of a hundred items one is gone, and ten have quantities that are one higher.
    """
    sizes: list[int] = []
    left = rows
    while left:
        n = len(sizes)
        sizes.append(min(left, 1 if n % 16 == 15 else 3 + n % 4))
        left -= sizes[-1]
    spent, items = 0, []
    for n, k, days in _spread(len(sizes)):
        if later and n % 100 == 7:
            rows -= sizes[n]
            continue
        day = FIRST + timedelta(days=DAYS - 1 - days)
        if n % 16 == 15:
            channel = ("sms", "voice", "email")[k // 16 % 3]
            head = f'"channel":"{channel}","regionCode":"{REGIONS[k // 48]}"'
        else:
            head = f'"channel":"whatsapp","wabaId":"{WABAS[k % 40]}","regionCode":"{REGIONS[k // 40]}"'
        costs = []
        for j in range(sizes[n]):
            price, quantity = PRICES[(n + 5 * j) % len(PRICES)], _chance(n, j) + (later and n % 10 == 0)
            spent += price * quantity
            average = repr(price / 1e6 * 0.97) if long_averages else plain(price)
            origin = "" if n % 16 == 15 else f',"conversationOriginType":"{ORIGINS[j]}"'
            costs.append(f'{{"cost":{plain(price * quantity)},"unitPrice":{average},"quantity":{quantity}{origin}}}')
        items.append(f'{{"date":"{day}","isTransient":false,{head},"costItems":[{",".join(costs)}]}}')
    return Month(items, [], rows, Decimal(spent).scaleb(-6))


def plivo(rows: int, *, later: bool = False) -> Month:
    """A month of Plivo with `rows` charges, two of them other charges; up to 14,000,000. `later` as for YCloud."""
    spent, items, others = 0, [], []
    many = 20 if rows <= 1_400_000 else len(SUBACCOUNTS)
    for n, k, days in _spread(max(rows - 2, 0)):
        if later and n % 100 == 7:
            continue
        day = FIRST + timedelta(days=days)
        head, tail = TRAFFIC[k % 10]
        price, units = PRICES[n % len(PRICES)], _chance(n, k) + (later and n % 10 == 0)
        spent += price * units
        whose = f',"subaccount_auth":"{SUBACCOUNTS[k // 10 % many]}","country":"{REGIONS[k // 10 // many]}"'
        measured = ',"duration_seconds":' + str(units * 61) if "pstn" in head else ',"surcharge":' + plain(units * 350)
        items.append(
            f'{{"from_date":"{day}T00:00:00Z","to_date":"{day + timedelta(days=1)}T00:00:00Z",{head}{whose}'
            f',"total_units":{units},"total_amount":{plain(price * units)}{measured}{tail}}}'
        )
    for description, amount in (("Number Charges", 102_124_500), ("CNAM Lookup", 192_000))[:rows]:
        spent += amount
        others.append(
            f'{{"from_date":"{FIRST}T00:00:00Z","to_date":"{END}T00:00:00Z","description":"{description}"'
            f',"total_units":48,"total_amount":{plain(amount)}}}'
        )
    return Month(items, others, len(items) + len(others), Decimal(spent).scaleb(-6))


def plain(millionths: int) -> str:
    """An amount in dollars, every digit and no trailing zeros: 3400 → 0.0034."""
    whole, fraction = divmod(millionths, 10**6)
    return f"{whole}.{fraction:06d}".rstrip("0").removesuffix(".")


def _spread(count: int) -> Iterator[tuple[int, int, int]]:
    """(number, number within its day, day) of `count` things over the month, equally many each day."""
    first = day = 0
    for n in range(count):
        if n * DAYS // count != day:
            first, day = n, n * DAYS // count
        yield n, n - first, day


def _chance(n: int, j: int) -> int:
    """1 to 9973, looking random and always the same."""
    return (n * 2654435761 + j * 40503 + 12345) % 9973 + 1
