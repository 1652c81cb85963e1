"""What a run says about itself in the Dagster UI: metadata that a person reads, and checks.

Words for a stranger on the left, facts on the right. Amounts are text, to the last digit; Dagster's numbers are floats.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import dagster as dg

from . import alerts, asking, development_plot, invoiced
from .charges import SCHEMA
from .failures import PAGE, Failure, printable
from .finality import EXPIRES_NOW, EXPIRES_SOON
from .invoice_lists import Asked
from .lake import Held
from .landing import Partition
from .ledger import NO_FETCH, Entry
from .line import Fetched, Line, Loaded
from .period import stamp
from .reconcile import DoesNotReconcile, Gate, money
from .warehouse import Published

CONTROL_TOTALS = "control_totals_agree"
UNCHANGED = "final_months_unchanged"
DOCUMENTED = "nothing_undocumented"
EXPIRY = "nothing_about_to_expire"
INVOICES = "invoices_agree"
IN_TIME = "final_when_due"
UP_TO_DATE = "months_up_to_date"
CHECKS = (CONTROL_TOTALS, UNCHANGED, DOCUMENTED, EXPIRY, IN_TIME, UP_TO_DATE)
"""All checks of an account's `charges`."""


def raw_metadata(fetched: Fetched) -> dict[str, Any]:
    """What a person reads on a materialization of `raw`."""
    what = {
        "fetched": "asked the provider and landed a complete answer",
        "shared": "a complete answer of the last minutes holds this month too; the provider was not asked again",
        "kept": "the month is final: the provider was not asked, and nothing was changed",
    }[fetched.action]
    metadata: dict[str, Any] = {"action": fetched.action, "what happened": what}
    if fetched.landing is None:
        return metadata
    manifest = fetched.landing.manifest
    return metadata | {
        "fetched at": manifest["fetched_at"],
        "requests": manifest["pages"],
        "walks restarted": manifest["restarts"],
        "bytes": manifest["bytes"],
        "landing": dg.MetadataValue.path(str(fetched.landing.folder)),
        "sha256": fetched.landing.sha256,
    }


def invoices_metadata(asked: Asked) -> dict[str, Any]:
    """What a person reads on a materialization of `invoices`: what came, or why nothing did."""
    return {"what came": asked.outcome, "why": asked.why or "the list came"}


def charges_metadata(line: Line, loaded: Loaded) -> dict[str, Any]:
    """What a person reads on a materialization of `charges`: the month as it stands now, and what was just done to it."""
    footer, held = loaded.held.footer, loaded.held
    what = {
        "written": "the month was replaced by what the provider states now"
        if loaded.change
        else "the month was loaded for the first time",
        "kept": "the month is final: it was left as it is"
        if held.final
        else "nothing to do: the month already shows the newest landing",
        "unchanged": "the month is final, and the provider still states the same",
        "restated": "the month is final and stays; the provider now states other numbers, which are held in the ledger",
    }[loaded.action]
    metadata: dict[str, Any] = {
        **verdict(held),
        "totals": billed(held),
        "change since the last fetch": _change(loaded),
        **_development(line, held.partition),
        "rows": footer["rows"],
        **_fetch(line, footer["landing"]),
        "action": loaded.action,
        "what happened": what,
        "landing": footer["landing"],
        "dagster/uri": str(held.path),
        "dagster/row_count": footer["rows"],
    }
    if loaded.gates:
        metadata |= gate_metadata(loaded.gates)
    if footer["left_out"]["rows"]:
        totals = ", ".join(f"{amount} {currency}" for currency, amount in footer["left_out"]["totals"].items())
        metadata["left to other months"] = f"{footer['left_out']['rows']} rows, {totals or 'no money'}"
    if footer["notes"]:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {shown(note)}" for note in footer["notes"]))
    return metadata


def checks(line: Line, loaded: Loaded) -> list[dg.AssetCheckResult]:
    """The checks of `charges`, evaluated on one load that succeeded."""
    partition = loaded.held.partition
    return [totals_agree(loaded), *of_account(line, (partition.provider, partition.account), [partition])]


def of_account(line: Line, account: tuple[str, str], loaded: Collection[Partition]) -> list[dg.AssetCheckResult]:
    """The checks that are about all months of an account, `loaded` being those that were loaded just now.

    About all: a check shows its last evaluation, and that of June would hide that of May.
    """
    held = [month for month in line.lake.all() if (month.partition.provider, month.partition.account) == account]
    return [
        unchanged(line, held),
        documented(month for month in held if not month.final or month.partition in loaded),
        expiry(line, account),
        in_time(line, account),
        up_to_date(line, account),
    ]


def totals_agree(loaded: Loaded) -> dg.AssetCheckResult:
    """The check that all control totals of a month agree; `disagreement` is its other outcome."""
    partition = loaded.held.partition
    return dg.AssetCheckResult(
        passed=all(gate.passed for gate in loaded.gates),
        check_name=CONTROL_TOTALS,
        description=f"{partition}: {len(loaded.gates)} control totals agree, {money(loaded.held.tally.totals)}."
        if loaded.gates
        else f"{partition}: nothing new to compare; the totals agreed when the month was written.",
        metadata={"month": str(partition)} | (gate_metadata(loaded.gates) if loaded.gates else {}),
    )


def unchanged(line: Line, held: Iterable[Held]) -> dg.AssetCheckResult:
    """The check that none of these months is final and waits for a decision about a restatement."""
    final = [month.partition for month in held if month.final]
    found = [entry for entry in (restatement(line, partition) for partition in final) if entry]
    return dg.AssetCheckResult(
        passed=not found,
        check_name=UNCHANGED,
        description="\n\n".join(f"{alerts.stated_anew(entry)}." for entry in found)
        or (f"Every final month ({len(final)}) is as it was closed." if final else "No month is final yet."),
        metadata={"months": len(found), "final months": len(final)},
    )


def documented(held: Iterable[Held]) -> dg.AssetCheckResult:
    """The check that these months hold nothing that their provider does not document."""
    noted = [month for month in held if month.footer["notes"]]
    return dg.AssetCheckResult(
        passed=not noted,
        check_name=DOCUMENTED,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n\n".join(printable(f"{month.partition}: {'; '.join(month.footer['notes'])}.") for month in noted)
        or "Nothing undocumented came.",
        metadata={"months": len(noted)},
    )


def expiry(line: Line, account: tuple[str, str] | None = None) -> dg.AssetCheckResult:
    """The check that no month is lost because its provider stopped serving it: of one account, or of all."""
    found = [(p, left) for p, left in line.expiring() if account in (None, (p.provider, p.account))]
    months = [alerts.expiring(line, partition, left) for partition, left in found]
    return dg.AssetCheckResult(
        passed=not found,
        check_name=EXPIRY,
        severity=dg.AssetCheckSeverity.ERROR
        if any(left <= EXPIRES_NOW for _, left in found)
        else dg.AssetCheckSeverity.WARN,
        description=". ".join(months) or f"Every month that is not final is served for more than {EXPIRES_SOON} days.",
        metadata={"months": len(found)},
    )


def in_time(line: Line, account: tuple[str, str]) -> dg.AssetCheckResult:
    """The check that every month of an account became final when it could."""
    months = [alerts.late(line, p) for p in line.late() if (p.provider, p.account) == account]
    return dg.AssetCheckResult(
        passed=not months,
        check_name=IN_TIME,
        severity=dg.AssetCheckSeverity.WARN,
        description=". ".join(months) or "Every month that could be final is.",
        metadata={"months": len(months)},
    )


def invoices(line: Line) -> dg.AssetCheckResult:
    """The check that every final month agrees with its invoices, as far as they are known."""
    said = invoiced.said(line.warehouse.path)
    found = said.disagreements
    return dg.AssetCheckResult(
        passed=not found,
        check_name=INVOICES,
        description="\n\n".join(judged.text for judged in found)
        or "Every final month agrees with its invoices, as far as they are known.",
        metadata={
            "months": len(found),
            "not available": "; ".join(said.unavailable) or "none",
        },
    )


def up_to_date(line: Line, account: tuple[str, str]) -> dg.AssetCheckResult:
    """The check that the last try of every month of an account succeeded, whoever tried."""
    failing = _failing(line, account)
    lines = [
        f"{failure} (since {stamp(failure.since) if failure.since else 'now'}; the month shows what it showed before)"
        for failure in failing
    ]
    return dg.AssetCheckResult(
        passed=not failing,
        check_name=UP_TO_DATE,
        description="\n\n".join(lines) or "The last try of every month succeeded.",
        metadata={"months": len(failing), "failed": ", ".join(f"{failure.subject}" for failure in failing) or "none"},
    )


def _failing(line: Line, account: tuple[str, str]) -> list[Failure]:
    months = [failure for failure in line.failing() if isinstance(failure.subject, Partition)]
    return [f for f in months if (f.subject.provider, f.subject.account) == account]  # type: ignore[union-attr]


def nothing_compared(line: Line, account: tuple[str, str]) -> dg.AssetCheckResult:
    """The check of control totals after a run that did not come to compare any.

    Dagster shows a check that was not evaluated as failed, and so the totals of every provider that is down as wrong.
    """
    wrong = [f for f in _failing(line, account) if f.kind == DoesNotReconcile.__name__]
    return dg.AssetCheckResult(
        passed=not wrong,
        check_name=CONTROL_TOTALS,
        description="\n\n".join(f"{failure}" for failure in wrong)
        or "Nothing was loaded, so there was nothing to compare. The totals of what is shown agreed when it was written.",
        metadata={"months": len(wrong)},
    )


def disagreement(partition: Partition, gates: list[Gate]) -> dg.AssetCheckResult:
    """The check of a month whose control totals do not agree; it blocks, and the month was not replaced."""
    failed = printable("; ".join(str(gate) for gate in gates if not gate.passed))
    return dg.AssetCheckResult(
        passed=False,
        check_name=CONTROL_TOTALS,
        description=f"{partition}: {failed}. The month was not replaced.",
        metadata={"month": str(partition)} | gate_metadata(gates),
    )


def warehouse_metadata(line: Line, published: Published) -> dict[str, Any]:
    """What a person reads on a materialization of the warehouse: which months are final, at one look."""
    status = dict.fromkeys(line.lost(), "no longer served")
    totals = ["| month | account | rows | billed |", "|---|---|---:|---|"]
    for month in sorted(line.lake.all(), key=lambda month: month.partition.period, reverse=True):
        partition = month.partition
        status[partition] = month.status + (", RESTATED" if restatement(line, partition) else "")
        name, tally = f"{partition.provider}/{partition.account}", month.tally
        totals.append(f"| {partition.period} | {name} | {tally.rows} | {money(tally.totals)} |")
    accounts = sorted({(partition.provider, partition.account) for partition in status})
    table = ["| month | " + " | ".join("/".join(a) for a in accounts) + " |", "|---" * (len(accounts) + 1) + "|"]
    for period in sorted({partition.period for partition in status}, reverse=True):
        words = (status.get(Partition(*account, period), "not fetched yet") for account in accounts)
        table.append(f"| {period} | " + " | ".join(words) + " |")
    views = ["| view | one row is |", "|---|---|"]
    views += [f"| {shown(name)} | {shown(meaning)} |" for name, meaning in asking.views(published.path)]
    return {
        "months": dg.MetadataValue.md("\n".join(table)),
        "totals": dg.MetadataValue.md("\n".join(totals)),
        "what can be asked": dg.MetadataValue.md("\n".join(views)),
        "months replaced": ", ".join(str(partition) for partition in published.loaded) or "none",
        "rows": published.rows,
        "bytes": published.path.stat().st_size,
        "rebuilt": published.rebuilt,
        "dagster/uri": str(published.path),
        "dagster/row_count": published.rows,
        "dagster/column_lineage": _lineage(line),
    }


def gate_metadata(gates: list[Gate]) -> dict[str, Any]:
    """Control totals as a table."""
    lines = [
        f"| {shown(g.name)} | {shown(g.expected)} | {shown(g.got)} | {'agrees' if g.passed else 'DOES NOT AGREE'} |"
        for g in gates
    ]
    table = "\n".join(["| total | expected | found | |", "|---|---|---|---|", *lines])
    return {"control totals": dg.MetadataValue.md(table)}


def shown(text: str) -> str:
    """Text inside Markdown as it is: nothing a provider says becomes a link, an image, HTML or a further cell of a table."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&:])", r"\\\1", printable(text).replace("\n", " "))


def column_schema() -> dg.TableSchema:
    """Names, types and meanings of the columns."""
    return dg.TableSchema(
        [dg.TableColumn(c.name, str(c.type), c.metadata[b"description"].decode()) for c in SCHEMA],
    )


def warehouse_schema() -> dg.TableSchema:
    """Those of the warehouse's table of charges: the month is a column there, and a folder in the lake."""
    period = dg.TableColumn("x_BillingPeriod", "string", "The calendar month on the provider's clock, YYYY-MM.")
    return dg.TableSchema([*column_schema().columns, period])


def _lineage(line: Line) -> dg.TableColumnLineage:
    """Every column of the warehouse's charges is the column of that name of each account's; the month is their partition."""
    keys = [dg.AssetKey([settings.provider, settings.name, "charges"]) for settings in line.configuration.accounts]
    return dg.TableColumnLineage({name: [dg.TableColumnDep(key, name) for key in keys] for name in SCHEMA.names})


def failed(failure: Failure) -> dg.Failure:
    """A failure as Dagster shows it: who, which month, what came, what to do, and that nothing was replaced."""
    return dg.Failure(
        str(failure),
        metadata={
            "kind of error": failure.kind,
            "can a rerun help": failure.rerun,
            "what to do": failure.remedy,
            "see": f"{PAGE}#{failure.chapter}",
            "what is shown now": "the numbers of the last complete fetch",
        },
        allow_retries=False,
    )


def restatement(line: Line, partition: Partition) -> Entry | None:
    """The last fetch of a final month, when it states other numbers than are held and nobody has decided about it yet."""
    return line.ledger.undecided(partition)


def final_metadata(held: Held) -> dict[str, Any]:
    """What a person reads on a materialization of `final_months`: why the month is closed, and with which numbers."""
    footer = held.footer
    return verdict(held) | {"totals": billed(held), "rows": footer["rows"], "landing": footer["landing"]}


def verdict(held: Held) -> dict[str, Any]:
    """Whether a month is final, why, and by which rule."""
    footer = held.footer
    return {
        "finality": held.status,
        "reason": footer["evidence"]["reason"],
        "rule": f"final when {footer['rule']}",
        "fetched at": footer["fetched_at"],
    }


def billed(held: Held) -> str:
    """A month's totals by currency, to the last digit."""
    return money(held.tally.totals) if held.footer["totals"] else "nothing billed"


def _development(line: Line, partition: Partition) -> dict[str, Any]:
    """A picture of the month's totals over its fetches; nothing where there is nothing to see."""
    fetches = [
        (datetime.fromisoformat(entry.fetch["fetched_at"]), entry.tally.totals)
        for entry in line.ledger.of(partition)
        if entry.decision not in NO_FETCH
    ]
    if not development_plot.developed(fetches):
        return {}
    return {"how the total developed": dg.MetadataValue.md(development_plot.markdown(fetches))}


def _fetch(line: Line, landing: str) -> dict[str, Any]:
    try:
        manifest = line.landings.get(landing).manifest
    except FileNotFoundError:  # landings of final months may be moved to an archive; the charges stay
        return {}
    return {"requests": manifest["pages"], "bytes": manifest["bytes"]}


def _change(loaded: Loaded) -> str:
    if not loaded.change:
        return "first fetch" if loaded.action == "written" else "none"
    if not loaded.change["rows"] and not loaded.change["totals"]:
        return "none in rows and money"
    totals = ", ".join(
        f"{'' if amount.startswith('-') else '+'}{amount} {currency}"
        for currency, amount in loaded.change["totals"].items()
    )
    return f"{loaded.change['rows']:+d} rows, {totals or 'no money'}"
