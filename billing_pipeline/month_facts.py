"""What a month's report says, asked of the published warehouse: rows of its views by question, nothing computed here.

Every question answers for all months at once or for one; `Facts` are those of one month. They hold amounts as the decimals they
are, and no two currencies are ever added up: every amount stands beside its currency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .asking import opened
from .period import BillingPeriod

Row = Mapping[str, Any]

LISTED = 12
"""How many movers of a month and currency are listed; the changes of whole accounts are all there."""


class NothingToReport(Exception):
    """The warehouse neither holds the month nor expects it."""

    rerun = "no"
    remedy = "Name a month that billing-pipeline status lists, or one from history_from on after the next refresh"


@dataclass(frozen=True)
class Facts:
    """One month.

    Attributes:
        period: the month.
        published_at: when the warehouse was published that was asked; None: it does not say.
        rows: by question, in the order in which they are shown.
    """

    period: BillingPeriod
    published_at: datetime | None
    rows: Mapping[str, Sequence[Row]]

    def __getitem__(self, question: str) -> Sequence[Row]:
        return self.rows[question]

    @property
    def titles(self) -> Mapping[str, str]:
        """What the providers call themselves on invoices; those of which nothing is held, by the name they have here."""
        known = {
            row["x_Provider"]: row["x_InvoiceIssuerName"] for row in self["accounts"] if row["x_InvoiceIssuerName"]
        }
        return {row["x_Provider"]: row["x_Provider"] for row in self["accounts"]} | known

    @property
    def fingerprint(self) -> str:
        """Of everything but when it was published: two publications may say the same of a month."""
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()


# One row: an account that holds the month, or of which it is expected. x_CompleteThrough is within the month.
ACCOUNTS = """
WITH days AS (
    SELECT
        x_BillingPeriod, x_Provider, x_Account, bool_or(x_IsDaily) AS x_IsDaily, bool_and(x_IsCovered) AS whole,
        CAST(x_BillingPeriod || '-01' AS DATE) AS first_day, min(x_Day) FILTER (WHERE NOT x_IsCovered) AS gap
    FROM x_expected
    WHERE x_IsDaily = (x_Day IS NOT NULL)
    GROUP BY ALL
),
decided AS (
    SELECT x_BillingPeriod, x_Provider, x_Account, max(x_LedgerLine) AS x_LedgerLine,
        arg_max(x_DecidedAt, x_LedgerLine) AS x_DecidedAt
    FROM finality_ledger
    WHERE x_Decision IN ('provisional', 'final')
    GROUP BY ALL
),
landed AS (
    SELECT x_BillingPeriod, x_Provider, x_Account, x_Landing, arg_max(x_Sha256, x_LedgerLine) AS x_Sha256,
        arg_max(json_array_length(x_Gates), x_LedgerLine) AS x_Gates
    FROM fetches
    GROUP BY ALL
)
SELECT
    x_BillingPeriod, x_Provider, x_Account, p.* EXCLUDE (x_BillingPeriod, x_Provider, x_Account),
    p.x_FinalityEvidence->>'reason' AS x_Reason,
    days.x_IsDaily IS NOT NULL AS x_IsExpected,
    days.x_IsDaily,
    CASE
        WHEN days.whole THEN CAST(first_day + INTERVAL 1 MONTH - INTERVAL 1 DAY AS DATE)
        WHEN days.gap > first_day THEN days.gap - 1
    END AS x_CompleteThrough,
    decided.x_LedgerLine, decided.x_DecidedAt, landed.x_Sha256, landed.x_Gates
FROM billing_periods AS p
FULL JOIN days USING (x_BillingPeriod, x_Provider, x_Account)
LEFT JOIN decided USING (x_BillingPeriod, x_Provider, x_Account)
LEFT JOIN landed USING (x_BillingPeriod, x_Provider, x_Account, x_Landing)
ORDER BY x_Provider, x_Account
"""

# One row: a service of a provider; without a service: the provider; without a provider: the month, each in one currency.
COST = """
WITH status AS (
    SELECT x_BillingPeriod, x_Provider, ServiceName, BillingCurrency, min(x_Finality) AS least, max(x_Finality) AS most
    FROM monthly_cost
    GROUP BY ALL
)
SELECT
    x_BillingPeriod, BillingCurrency, x_Provider, ServiceName,
    sum(BilledCost) AS BilledCost, sum(EffectiveCost) AS EffectiveCost, sum(x_PaidIn) AS x_PaidIn,
    sum(x_Corrections) AS x_Corrections, sum(x_Provisional) AS x_Provisional,
    sum(BilledCost) - sum(x_Provisional) AS x_Final,
    CAST(sum(x_Rows) AS BIGINT) AS x_Rows,
    CASE WHEN min(least) = max(most) THEN min(least) ELSE 'part provisional' END AS x_Finality
FROM cost_by_service JOIN status USING (x_BillingPeriod, x_Provider, ServiceName, BillingCurrency)
GROUP BY GROUPING SETS (
    (x_BillingPeriod, BillingCurrency),
    (x_BillingPeriod, BillingCurrency, x_Provider),
    (x_BillingPeriod, BillingCurrency, x_Provider, ServiceName)
)
ORDER BY BillingCurrency, x_Provider NULLS LAST, ServiceName IS NOT NULL, BilledCost DESC, ServiceName
"""

# One row: a day of an account in a currency; EffectiveCost is null on a day that is not there as a whole.
DAYS = """
SELECT
    x_BillingPeriod, series.x_Provider, series.x_Account, series.BillingCurrency, e.x_Day,
    CASE WHEN e.x_IsCovered THEN coalesce(costs.cost, 0) END AS EffectiveCost
FROM (
    SELECT DISTINCT strftime(x_UsageDate, '%Y-%m') AS x_BillingPeriod, x_Provider, x_Account, BillingCurrency FROM x_daily
) AS series
JOIN x_expected AS e USING (x_BillingPeriod, x_Provider, x_Account)
LEFT JOIN (
    SELECT x_Provider, x_Account, BillingCurrency, x_UsageDate AS x_Day, sum(EffectiveCost) AS cost FROM x_daily GROUP BY ALL
) AS costs USING (x_Provider, x_Account, BillingCurrency, x_Day)
WHERE e.x_Day IS NOT NULL
ORDER BY ALL
"""

# One row: an account in a currency, and which part of what was used in the month is in its daily curve.
SPENT = """
WITH spent AS (
    SELECT
        x_IncurredPeriod AS x_BillingPeriod, x_Provider, x_Account, BillingCurrency, sum(EffectiveCost) AS EffectiveCost,
        coalesce(sum(EffectiveCost) FILTER (WHERE x_UsageDate IS NULL), 0) AS x_ByMonth
    FROM spend
    GROUP BY ALL
),
curve AS (
    SELECT strftime(x_UsageDate, '%Y-%m') AS x_BillingPeriod, x_Provider, x_Account, BillingCurrency, sum(EffectiveCost) AS cost
    FROM x_daily
    GROUP BY ALL
)
SELECT spent.*, coalesce(curve.cost, 0) AS x_InCurve, EffectiveCost - x_ByMonth - coalesce(curve.cost, 0) AS x_NotWhole
FROM spent LEFT JOIN curve USING (x_BillingPeriod, x_Provider, x_Account, BillingCurrency)
ORDER BY x_BillingPeriod, BillingCurrency, x_Provider, x_Account
"""

# One row: an account in a currency against the month before; without an account: all that can be compared.
CHANGES = """
WITH changed AS (
    SELECT
        x_IncurredPeriod AS x_BillingPeriod, BillingCurrency, x_Provider, x_Account,
        sum(EffectiveCost) AS EffectiveCost,
        sum(x_CostBefore) AS x_CostBefore, sum(x_Change) AS x_Change, min(x_FinalityBefore) AS x_FinalityBefore
    FROM month_over_month
    GROUP BY ALL
)
SELECT
    x_BillingPeriod, BillingCurrency, x_Provider, x_Account,
    CASE WHEN grouping(x_Account) = 0 THEN sum(EffectiveCost)
         ELSE sum(EffectiveCost) FILTER (WHERE x_FinalityBefore IS NOT NULL) END AS EffectiveCost,
    sum(x_CostBefore) AS x_CostBefore, sum(x_Change) AS x_Change,
    CASE WHEN sum(x_CostBefore) <> 0 THEN
        CAST(100 * CAST(sum(x_Change) AS DOUBLE) / abs(CAST(sum(x_CostBefore) AS DOUBLE)) AS DECIMAL(38,1))
    END AS x_ChangePercent,
    CASE WHEN grouping(x_Account) = 0 THEN min(x_FinalityBefore) END AS x_FinalityBefore
FROM changed
GROUP BY GROUPING SETS ((x_BillingPeriod, BillingCurrency), (x_BillingPeriod, BillingCurrency, x_Provider, x_Account))
ORDER BY BillingCurrency, x_Provider NULLS LAST, x_Account
"""

# One row: what a provider stated anew of a closed month in one currency, and what was decided about it last.
RESTATEMENTS = """
WITH told AS (
    SELECT *, unnest(list_sort(list_distinct(list_concat(
        json_keys(x_Evidence, '$.held_totals'), json_keys(x_Evidence, '$.stated_totals'))))) AS BillingCurrency
    FROM finality_ledger
    WHERE x_Decision = 'restated'
)
SELECT
    told.x_BillingPeriod, told.x_Provider, told.x_Account, told.x_DecidedAt, told.x_Landing, told.x_LedgerLine, BillingCurrency,
    coalesce(CAST(json_extract_string(told.x_Evidence, '$.held_totals.' || BillingCurrency) AS DECIMAL(38,18)), 0) AS x_Held,
    coalesce(CAST(json_extract_string(told.x_Evidence, '$.stated_totals.' || BillingCurrency) AS DECIMAL(38,18)), 0) AS x_Stated,
    x_Stated - x_Held AS x_Difference,
    after.x_Decision, after.x_Evidence->>'by' AS x_By, after.x_Evidence->>'why' AS x_Why,
    after.x_Evidence->>'booked_in' AS x_BookedIn, after.x_DecidedAt AS x_SettledAt
FROM told
LEFT JOIN (
    SELECT *, lag(x_LedgerLine) OVER (PARTITION BY x_Provider, x_Account, x_BillingPeriod ORDER BY x_LedgerLine) AS before
    FROM finality_ledger
    WHERE x_Decision IN ('restated', 'approved', 'dismissed')
) AS after ON after.x_Provider = told.x_Provider AND after.x_Account = told.x_Account
    AND after.x_BillingPeriod = told.x_BillingPeriod AND after.before = told.x_LedgerLine
ORDER BY told.x_Provider, told.x_Account, told.x_LedgerLine, BillingCurrency
"""

QUESTIONS = {
    "accounts": ACCOUNTS,
    "cost": COST,
    "days": DAYS,
    "spent": SPENT,
    "anomalies": """
        SELECT strftime(x_UsageDate, '%Y-%m') AS x_BillingPeriod, * FROM x_daily WHERE x_IsAnomaly
        ORDER BY BillingCurrency, abs(x_Deviation) DESC, x_UsageDate, x_Provider, x_Account, ServiceName""",
    "changes": CHANGES,
    "movers": f"""
        SELECT x_IncurredPeriod AS x_BillingPeriod, * FROM movers WHERE x_Rank <= {LISTED} ORDER BY BillingCurrency, x_Rank""",  # noqa: S608
    "corrections": """
        SELECT x_BillingPeriod, x_Provider, x_Account, x_IncurredPeriod, BillingCurrency, sum(BilledCost) AS BilledCost
        FROM spend WHERE ChargeClass = 'Correction' GROUP BY ALL ORDER BY ALL""",
    "drift": "SELECT * FROM drift ORDER BY BillingCurrency, x_Provider, x_Account",
    "estimates": "SELECT * FROM accrual_estimate ORDER BY BillingCurrency, x_Provider, x_Account",
    "restatements": RESTATEMENTS,
    "invoices": "SELECT * FROM reconciliation ORDER BY BillingCurrency, x_Provider, x_Account, BillingAccountId",
    "missing": """
        SELECT x_BillingPeriod, x_Provider, x_Account, x_Day, x_Rows FROM coverage WHERE x_Coverage = 'missing'
        ORDER BY x_Provider, x_Account, x_Day""",
}


def asked(warehouse: Path, only: BillingPeriod | None = None) -> list[Facts]:
    """The facts of every month that the warehouse holds or expects, oldest first; with `only` of that month alone.

    Raises:
        NothingToReport: it does not know the month.
        NothingPublished: there is no warehouse.
        Unanswerable: it is of another version.
    """
    months: dict[str, dict[str, list[Row]]] = {}
    with opened(warehouse) as db:
        # The medians of the days are asked for once, and lie in memory: the file is read-only.
        window = f"WHERE strftime(x_UsageDate, '%Y-%m') = '{only}'" if only else ""
        db.execute(f"CREATE TEMP TABLE x_daily AS SELECT * FROM daily_cost {window}")  # noqa: S608
        for question, sql in QUESTIONS.items():
            wanted = "WHERE x_BillingPeriod = $1" if only else ""
            db.execute(f"SELECT * FROM ({sql}) {wanted}", [str(only)] if only else [])  # noqa: S608
            names = [name for name, *_ in db.description or ()]
            for found in db.fetchall():
                row = dict(zip(names, found, strict=True))
                empty: dict[str, list[Row]] = {name: [] for name in QUESTIONS}
                months.setdefault(row["x_BillingPeriod"], empty)[question].append(row)
        ((published_at,),) = db.execute("SELECT max(x_PublishedAt) FROM x_expected").fetchall()
    held = sorted(month for month, rows in months.items() if rows["accounts"])
    if only and str(only) not in held:
        raise NothingToReport(f"the warehouse neither holds {only} nor expects it")
    return [Facts(BillingPeriod.parse(month), published_at, months[month]) for month in held]
