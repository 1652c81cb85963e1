"""A month's report as one HTML file that asks nothing of any network: facts in, text out.

What a provider or a person called something is text in it, never HTML. What is not known says so in words, and is no 0.
"""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from . import month_plots, month_tables
from .failures import printable
from .finality import EXPIRES_SOON
from .month_facts import Facts, Row
from .month_tables import account, amount, by_currency, signed
from .period import BillingPeriod
from .reconcile import plain

if TYPE_CHECKING:
    from jinja2 import Environment

PARTS = ("report.html", "report_index.html", "report_parts.html", "report.css")
MADE_BY = (*PARTS, "month_facts.py", "month_page.py", "month_plots.py", "month_tables.py")
SERVICES, SLICES = 14, 8  # how many a plot shows; the tables have the others


def page(facts: Facts, *, made_of: str) -> str:
    """The report of a month. `made_of`: what is remembered in it, to know later whether it is still true."""
    template = _environment().get_template("report.html")
    return template.render(
        facts=facts,
        made_of=made_of,
        month=month_name(facts.period),
        before=month_name(facts.period.plus(-1)),
        standing=standing(facts),
        running=any(row["x_Finality"] == "provisional" for row in facts["accounts"]),
        sentence=sentence(facts),
        through=through(facts),
        warnings=list(warnings(facts)),
        accounts=[_account(row) for row in facts["accounts"]],
        costs=list(_costs(facts)),
        curves=list(_curves(facts)),
        moved=list(_moved(facts)),
        uninvoiced=uninvoiced(facts),
        missing=list(missing(facts)),
        tables=month_tables,
    )


def index(months: Sequence[Facts], *, made_of: str) -> str:
    """The list of all months, newest first, with links to their reports."""
    shown = [
        {
            "period": str(facts.period),
            "month": month_name(facts.period),
            "standing": standing(facts),
            "totals": [row for row in facts["cost"] if row["x_Provider"] is None],
            "through": through(facts),
            "warnings": list(warnings(facts)),
        }
        for facts in reversed(months)
    ]
    published_at = months[-1].published_at if months else None
    template = _environment().get_template("report_index.html")
    return template.render(months=shown, made_of=made_of, published_at=published_at)


@cache
def looks() -> str:
    """A fingerprint of everything that decides how a report looks: one that another version made is made anew."""
    package = files("billing_pipeline")
    return sha256(b"".join(package.joinpath(name).read_bytes() for name in MADE_BY)).hexdigest()


def month_name(period: BillingPeriod) -> str:
    """May 2026."""
    return f"{calendar.month_name[period.month]} {period.year}"


def standing(facts: Facts) -> str:
    """incomplete: an account is not in it. restated: a person must decide. provisional, or final: all of it."""
    rows = facts["accounts"]
    if any(row["x_Finality"] is None for row in rows):
        return "incomplete"
    if any(row["x_Restated"] for row in rows):
        return "restated"
    return "final" if all(row["x_Finality"] == "final" for row in rows) else "provisional"


def sentence(facts: Facts) -> str:
    """The month in one sentence: what each provider billed, in each currency, and whether that may still change."""
    providers = [row for row in facts["cost"] if row["x_Provider"] and row["ServiceName"] is None]
    providers.sort(key=lambda row: (row["x_Provider"], row["x_Finality"], row["BillingCurrency"]))
    told = []
    for (provider, finality), rows in groupby(providers, lambda row: (row["x_Provider"], row["x_Finality"])):
        amounts = " and ".join(f"{row['BillingCurrency']} {amount(row['BilledCost'])}" for row in rows)
        told.append(f"{facts.titles[provider]} {amounts} {finality}")
    for row in facts["accounts"]:
        if row["x_Finality"] is None:
            told.append(f"{account(row)} never fetched")
        elif not row["x_Rows"] and row["x_Corrections"] == "{}":
            told.append(f"{account(row)} billed nothing, {row['x_Finality']}")
    return f"{month_name(facts.period)}: {'; '.join(told)}."


def warnings(facts: Facts) -> Iterator[str]:
    """What a person must know before using the numbers, or do before it is too late."""
    never = [account(row) for row in facts["accounts"] if row["x_Finality"] is None]
    if never:
        yield f"Never fetched for this month: {', '.join(never)}. None of their charges are in any total here."
    for row in facts["accounts"]:
        name, left = account(row), row["x_DaysLeft"]
        if row["x_Restated"]:
            yield f"{name} is closed, and the provider now states other numbers: a person must approve or dismiss them."
        if left is not None and left < 0:
            yield f"{name} is not final, and the provider no longer serves this month: only its support can help."
        elif left is not None and left <= EXPIRES_SOON:
            yield f"{name} is not final, and the provider serves this month for {left} more days only."
    for name, gap, _ in missing(facts):
        if name not in never:
            yield f"{name}: {gap} should be covered by a complete fetch, and is not."
    for row in facts["invoices"]:
        if row["x_Verdict"] in ("disagrees", "the provider states another invoice"):
            yield (
                f"{account(row)}: invoice {row['x_Invoices']} and the closed month do not agree: {row['x_Verdict']}, "
                f"unexplained {signed(row['x_Unexplained'])} {row['BillingCurrency']}."
            )


def through(facts: Facts) -> str:
    """Through which day everything is there."""
    rows = [row for row in facts["accounts"] if row["x_IsExpected"]]
    if not rows:
        return "not known: no account of accounts.toml is expected to have this month"
    last = date(facts.period.year, facts.period.month, calendar.monthrange(facts.period.year, facts.period.month)[1])
    if all(row["x_CompleteThrough"] == last for row in rows):
        return f"{day(last)}, the whole month, {'all accounts' if len(rows) > 1 else account(rows[0])}"
    ends: dict[str, list[str]] = {}
    for row in rows:
        end = row["x_CompleteThrough"]
        if end:
            text = day(end)
        elif row["x_Finality"] is None:
            text = "no day, never fetched"
        else:
            text = "no day yet" if row["x_IsDaily"] else "not before the month is over"
        ends.setdefault(text, []).append(account(row))
    if len(ends) == 1:
        return f"{next(iter(ends))}, {'all accounts' if len(rows) > 1 else account(rows[0])}"
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in ends.items())


def missing(facts: Facts) -> Iterator[tuple[str, str, int]]:
    """Account, days, and how many they are, that should be covered and are not; without a day what is charged by the month."""
    for name, rows in groupby(facts["missing"], account):
        runs: list[list[date]] = []
        for each in (row["x_Day"] for row in rows if row["x_Day"]):
            if runs and (each - runs[-1][-1]).days == 1:
                runs[-1].append(each)
            else:
                runs.append([each])
        told = [day(run[0]) if len(run) == 1 else f"{day(run[0])} to {day(run[-1])}" for run in runs]
        yield name, ", ".join(told) or "what is charged by the month", sum(map(len, runs))


def uninvoiced(facts: Facts) -> list[str]:
    """The accounts of which no invoice of the month is known, with the currency."""
    rows = [row for row in facts["invoices"] if row["x_Verdict"] == "no invoice"]
    return sorted({f"{account(row)} ({row['BillingCurrency']})" for row in rows})


def day(value: date) -> str:
    """19 June 2026."""
    return f"{value.day} {calendar.month_name[value.month]} {value.year}"


def instant(value: datetime) -> str:
    """2026-06-20 06:00 UTC; the warehouse is asked in UTC."""
    return f"{value:%Y-%m-%d %H:%M} UTC"


def _account(row: Row) -> Row:
    def totals(text: str | None) -> list[tuple[str, Decimal]]:
        return [(currency, Decimal(digits)) for currency, digits in sorted(json.loads(text or "{}").items())]

    return {
        **row,
        "name": account(row),
        "totals": totals(row["x_Totals"]),
        "corrections": totals(row["x_Corrections"]),
        "left_out": json.loads(row["x_LeftOut"] or "{}").get("rows", 0),
        "notes": json.loads(row["x_Notes"] or "[]"),
    }


def _costs(facts: Facts) -> Iterator[dict[str, Any]]:
    for number, (currency, rows) in enumerate(by_currency(facts["cost"])):
        total = rows[-1]
        services = [row for row in rows if row["ServiceName"]]
        services.sort(key=lambda row: (-abs(row["EffectiveCost"]), row["x_Provider"], row["ServiceName"]))
        bars = [
            month_plots.Bar(
                f"{row['ServiceName']} · {facts.titles[row['x_Provider']]}",
                amount(row["EffectiveCost"]),
                row["EffectiveCost"],
                row["x_Finality"] != "final",
            )
            for row in services[:SERVICES]
        ]
        yield {
            "currency": currency,
            "total": total,
            "share": _share(total),
            "table": month_tables.cost(month_name(facts.period), currency, rows, facts.titles),
            "plot": month_plots.bars(f"cost-{number}", f"Used or bought by service, {currency}", bars),
            "undrawn": len(services) - len(bars),
        }


def _share(total: Row) -> Decimal | None:
    """Percent of the month that is final, to one decimal, and 0 or 100 only when it is; None: there is no such share."""
    billed: Decimal = total["BilledCost"]
    final: Decimal = total["x_Final"]
    if billed <= 0 or not 0 <= final <= billed:
        return None
    if final in (0, billed):
        return Decimal(100 if final else 0)
    return min(max((100 * final / billed).quantize(Decimal("0.1")), Decimal("0.1")), Decimal("99.9"))


def _curves(facts: Facts) -> Iterator[dict[str, Any]]:
    finality = {account(row): row["x_Finality"] for row in facts["accounts"]}
    number = count()
    for currency, same in by_currency(facts["days"]):
        for name, grouped in groupby(same, account):
            rows = list(grouped)
            held = [row for row in rows if row["EffectiveCost"] is not None]
            if not held:
                continue
            most = max(held, key=lambda row: row["EffectiveCost"])
            told = (
                f"{name} by day, {currency}: {len(held)} of {len(rows)} days are there as a whole; the dearest is "
                f"{day(most['x_Day'])} with {amount(most['EffectiveCost'])}"
            )
            costs = [row["EffectiveCost"] for row in rows]
            provisional = finality[name] != "final"
            yield {
                "name": name,
                "currency": currency,
                "status": finality[name],
                "plot": month_plots.curve(f"days-{next(number)}", told, costs, provisional=provisional),
                "table": month_tables.days(name, currency, rows),
            }


def _moved(facts: Facts) -> Iterator[dict[str, Any]]:
    now, before = month_name(facts.period), month_name(facts.period.plus(-1))
    movers = dict(by_currency(facts["movers"]))
    for number, (currency, rows) in enumerate(by_currency(facts["changes"])):
        listed = movers.get(currency, [])
        bars = [
            month_plots.Bar(
                f"{month_tables.moved(row)} · {facts.titles[row['x_Provider']]}",
                signed(row["x_Change"]),
                row["x_Change"],
                row["x_Finality"] != "final",
            )
            for row in listed[:SLICES]
        ]
        yield {
            "currency": currency,
            "total": rows[-1] if rows[-1]["x_Change"] is not None else None,
            "table": month_tables.changes(now, before, currency, rows),
            "plot": month_plots.bars(f"movers-{number}", f"Largest changes against {before}, {currency}", bars),
            "movers": month_tables.movers(now, before, currency, listed) if listed else None,
        }


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    package = files("billing_pipeline")
    made = Environment(
        loader=DictLoader({name: package.joinpath(name).read_text("utf-8") for name in PARTS}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for written in (amount, signed, plain, day, instant):
        made.filters[written.__name__] = written
    made.filters["shown"] = printable
    made.tests["money"] = lambda value: isinstance(value, Decimal)
    made.tests["instant"] = lambda value: isinstance(value, datetime)
    made.tests["day"] = lambda value: isinstance(value, date)
    return made
