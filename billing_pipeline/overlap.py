"""Whether two accounts of one provider bring the same charges, so that every cent of them would be counted twice.

That happens where one scope contains another: a parent and its sub-account, two clients of one organisation, two keys of one
company, an account under two names. No API says so, but the rows do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import scratch
from .charges import SCHEMA
from .lake import Held
from .landing import Partition
from .reconcile import Tally, money
from .schema import LINEAGE

WHOSE = ("BillingAccountId", "BillingAccountName", "SubAccountId", "SubAccountName", "x_Account")
"""Columns that depend on which scope was asked, so that one charge may have several values."""
COINCIDENCE = 10
"""Without an owner in the rows, two strangers may send one message to one country on one day: so few are no overlap."""

if TYPE_CHECKING:
    import duckdb


class OverlappingAccounts(Exception):
    """Two accounts of accounts.toml bring the same charges; the month was not replaced."""

    rerun = "no"
    remedy = "Keep the account that contains more, or set disjoint_from"


def require(
    partition: Partition, new: Path, others: Iterable[Held], *, disjoint: Collection[str], volatile: Collection[str]
) -> None:
    """Raise unless the month's new file shares no charge with the month as another account of the provider holds it.

    Args:
        partition: the month.
        new: its next Parquet file.
        others: the same month of the provider's other accounts.
        disjoint: names of accounts that a person declared to have different charges, however alike they look.
        volatile: see `Provider`.

    Raises:
        OverlappingAccounts: naming both accounts, how many rows and how much money they share, and what to do.
    """
    for other in others:
        name = other.partition.account
        if name in disjoint:
            continue
        found = shared(new, other.path, volatile)
        if found.rows:
            provider, account = partition.provider, partition.account
            raise OverlappingAccounts(
                f"{found.rows} charges worth {money(found.totals)} are held for {provider}/{name} too: same owner, period, "
                f"service, quantity and amount. They would be counted twice, so the month of {provider}/{account} was not "
                "replaced. When one of the two contains the other (a parent and its sub-account, two clients or keys of one "
                "organisation), keep the one that contains more and take the other's [[account]] out of accounts.toml; if "
                f"that is {name}, also move data/raw/{provider}/{name} and data/charges/*/{provider}--{name}.parquet away. "
                f'When the provider says that these are different charges, add disjoint_from = ["{name}"] to {account}'
            )


def shared(one: Path, other: Path, volatile: Collection[str]) -> Tally:
    """The charges of a month's file that another account's file of that month holds as well; none when it is coincidence.

    Where the provider states whose a charge is (an account's or sub-account's own id), a single charge of the same owner is
    enough: no two rows of one answer are alike in everything. Where it does not (the id is the name in accounts.toml),
    it takes at least ten rows, and half of the shorter month.
    """
    same = [c for c in SCHEMA.names if c not in (*LINEAGE, *WHOSE, "x_Dimensions")]
    columns = ", ".join(f'"{name}"' for name in same)

    def both(db: duckdb.DuckDBPyConnection) -> tuple[int, list[Any], int]:
        for table, path in (("one", one), ("other", other)):
            # Rows without money cannot be counted twice, and are alike everywhere.
            db.execute(
                f"CREATE TEMP VIEW {table} AS SELECT * FROM read_parquet('{_quoted(path)}') WHERE BilledCost <> 0"  # noqa: S608
            )
        stated = db.execute(
            "SELECT count(*) FROM (FROM one UNION ALL FROM other) WHERE BillingAccountId <> x_Account"
        ).fetchall()[0][0]
        owner = "coalesce(SubAccountId, BillingAccountId)" if stated else "NULL"
        charge = f"hash({owner}, {columns}, json_merge_patch(x_Dimensions, $1))"
        rows = db.execute(
            f"SELECT BillingCurrency, count(*), sum(BilledCost) FROM one "  # noqa: S608
            f"WHERE {charge} IN (SELECT {charge} FROM other) GROUP BY ALL",
            [json.dumps(dict.fromkeys(volatile))],  # a merge patch: null takes the field away
        ).fetchall()
        shorter = min(db.execute("SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM other)").fetchall()[0])
        return stated, rows, shorter

    stated, rows, shorter = scratch.asked(both)
    found = Tally(rows=sum(row[1] for row in rows), totals={row[0]: row[2] for row in rows})
    return found if stated or found.rows >= max(COINCIDENCE, shorter / 2) else Tally()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
