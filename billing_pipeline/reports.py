"""What a run says about itself in the Dagster UI: metadata that a person reads, checks, and both for a foreground refresh.

Words for a stranger on the left, facts on the right. Amounts are text, to the last digit; Dagster's numbers are floats.
"""

from __future__ import annotations

import re
from typing import Any

import dagster as dg

from . import alerts, invoiced
from .charges import SCHEMA
from .failures import PAGE, Failure, printable
from .finality import EXPIRES_NOW, EXPIRES_SOON
from .landing import Partition
from .ledger import Entry
from .line import Fetched, Line, Loaded
from .period import stamp
from .reconcile import Gate, money
from .warehouse import Published

CONTROL_TOTALS = "control_totals_agree"
UNCHANGED = "final_month_unchanged"
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
        "action": loaded.action,
        "what happened": what,
        "finality": held.status,
        "reason": footer["evidence"]["reason"],
        "rule": f"final when {footer['rule']}",
        "rows": footer["rows"],
        "totals": money(held.tally.totals) if footer["totals"] else "nothing billed",
        "change since the last fetch": _change(loaded),
        **_fetch(line, footer["landing"]),
        "fetched at": footer["fetched_at"],
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
    footer, partition = loaded.held.footer, loaded.held.partition
    other = restatement(line, partition)
    if other:
        text = f"{alerts.stated_anew(other)}."
    else:
        text = f"{partition} is {'as it was closed' if loaded.held.final else 'not closed yet'}."
    return [
        dg.AssetCheckResult(
            passed=all(gate.passed for gate in loaded.gates),
            check_name=CONTROL_TOTALS,
            description=f"{partition}: {len(loaded.gates)} control totals agree, {money(loaded.held.tally.totals)}."
            if loaded.gates
            else f"{partition}: nothing new to compare; the totals agreed when the month was written.",
            metadata={"month": str(partition)} | (gate_metadata(loaded.gates) if loaded.gates else {}),
        ),
        dg.AssetCheckResult(
            passed=other is None, check_name=UNCHANGED, description=text, metadata={"month": str(partition)}
        ),
        dg.AssetCheckResult(
            passed=not footer["notes"],
            check_name=DOCUMENTED,
            severity=dg.AssetCheckSeverity.WARN,
            description=printable(f"{partition}: {'; '.join(footer['notes']) or 'nothing undocumented came'}."),
            metadata={"month": str(partition)},
        ),
        expiry(line, (partition.provider, partition.account)),
        in_time(line, (partition.provider, partition.account)),
        up_to_date(line, (partition.provider, partition.account)),
    ]


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
    found = invoiced.disagreements(line.warehouse.path)
    return dg.AssetCheckResult(
        passed=not found,
        check_name=INVOICES,
        description="\n\n".join(judged.text for judged in found)
        or "Every final month agrees with its invoices, as far as they are known.",
        metadata={
            "months": len(found),
            "not available": "; ".join(invoiced.unavailable(line.warehouse.path)) or "none",
        },
    )


def up_to_date(line: Line, account: tuple[str, str]) -> dg.AssetCheckResult:
    """The check that the last try of every month of an account succeeded, whoever tried."""
    failing = [f for f in line.failing() if isinstance(f.subject, Partition)]
    failing = [f for f in failing if (f.subject.provider, f.subject.account) == account]  # type: ignore[union-attr]
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
    return {
        "months": dg.MetadataValue.md("\n".join(table)),
        "totals": dg.MetadataValue.md("\n".join(totals)),
        "months replaced": ", ".join(str(partition) for partition in published.loaded) or "none",
        "rows": published.rows,
        "bytes": published.path.stat().st_size,
        "rebuilt": published.rebuilt,
        "dagster/uri": str(published.path),
        "dagster/row_count": published.rows,
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


def report(instance: dg.DagsterInstance, line: Line, partition: Partition, fetched: Fetched, loaded: Loaded) -> None:
    """Tell Dagster of a month that `billing-pipeline refresh` did in the foreground, so that the UI shows it."""
    key = [partition.provider, partition.account]
    for name, metadata in (("raw", raw_metadata(fetched)), ("charges", charges_metadata(line, loaded))):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=[*key, name], partition=str(partition.period), metadata=metadata)
        )
    for check in checks(line, loaded):
        if check.check_name != UP_TO_DATE:  # told once for the account, after all its months
            _evaluated(instance, [*key, "charges"], check)


def report_up_to_date(instance: dg.DagsterInstance, line: Line, account: tuple[str, str]) -> None:
    """Tell Dagster which months of an account could not be brought up to date, or that all could."""
    _evaluated(instance, [*account, "charges"], up_to_date(line, account))


def _evaluated(instance: dg.DagsterInstance, key: list[str], check: dg.AssetCheckResult) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(key),
            check_name=str(check.check_name),
            passed=check.passed,
            metadata=dict(check.metadata or {}),
            severity=check.severity,
            description=check.description,
            blocking=check.check_name == CONTROL_TOTALS,
        )
    )


def report_warehouse(instance: dg.DagsterInstance, line: Line, published: Published) -> None:
    """Tell Dagster that the warehouse was published in the foreground."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=["warehouse", "charges"], metadata=warehouse_metadata(line, published))
    )
    _evaluated(instance, ["warehouse", "charges"], expiry(line))
    _evaluated(instance, ["warehouse", "charges"], invoices(line))


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
