"""FOCUS 1.4 as others get it: the views, and the files of `billing-pipeline export focus`. `.ci/focus` asks outside judges."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_pipeline import export
from billing_pipeline.export import Exported, NothingToExport
from billing_pipeline.lake import Lake
from billing_pipeline.landing import Landings, Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod, stamp
from billing_pipeline.providers import providers
from billing_pipeline.warehouse import Warehouse

from .charges_rows import ISSUERS, JUNE, MAY, store
from .conftest import Company
from .year import ACCOUNTS, example, offline  # noqa: F401  a fixture

WIDE = (
    "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'focus' AND table_name = 'cost_and_usage'"
)
DECIMALS = re.compile(r"(Cost|Quantity|UnitPrice)$")
JSONS = {
    "AllocatedMethodDetails", "AllocatedTags", "CommitmentProgramEligibilityDetails", "ContractApplied", "SkuPriceDetails",
    "Tags",
}  # fmt: skip
AMOUNTS = ("billed", "paid_in", "corrections")
# Who changes the columns, or what they mean, gives SCHEMAS_CREATED a new date and this what pytest then shows.
COLUMNS_OF_2026_11_22 = {"cost_and_usage": "60e07d5720a4", "billing_period": "37c068fd9370"}


@pytest.fixture(scope="module")
def delivered(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """An export of everything that the example holds; to be read only."""
    folder = tmp_path_factory.mktemp("delivered") / "out"
    exported(offline(example), folder)
    return folder


def exported(line: Line, folder: Path, *periods: str) -> Exported:
    months = [BillingPeriod.parse(text) for text in periods]
    return export.focus_1_4(line.warehouse.path, line.providers, months, folder, line.version)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def metadata(folder: Path, name: str) -> Any:
    return json.loads((folder / "metadata" / name).read_text())


def ask(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        return db.execute(sql).fetchall()


def test_every_column_of_focus_has_its_type_and_one_that_is_never_filled_says_why(example: Path) -> None:  # noqa: F811
    warehouse = example / "warehouse.duckdb"
    types = dict(ask(warehouse, WIDE))
    for name, kind in types.items():
        if name.startswith("x_"):
            continue
        wanted = "JSON" if name in JSONS else "VARCHAR"
        if DECIMALS.search(name):
            wanted = "DECIMAL(38,18)"
        if name.endswith(("PeriodStart", "PeriodEnd")):
            wanted = "TIMESTAMP WITH TIME ZONE"
        assert kind == wanted, name
    charges = {row[0] for row in ask(warehouse, "SELECT column_name FROM (DESCRIBE charges)")}
    for table in ("cost_and_usage", "focus_data_table"):
        silent = dict(ask(warehouse, f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{table}'"))
        assert {n for n, c in silent.items() if c.startswith("Always null. No ")} == (
            set(types) - charges - {"x_ChargeKey"}
        )
    (counts,) = ask(warehouse, "SELECT count(COLUMNS(*)) FROM focus_data_table")
    filled = {name for name, count in zip(types, counts, strict=True) if count}
    assert not filled - charges - {"x_ChargeKey"}


def test_both_files_hold_every_charge_of_the_warehouse_to_the_last_digit(example: Path, delivered: Path) -> None:  # noqa: F811
    parquet = pq.read_table(delivered / "cost_and_usage.parquet")
    names = parquet.schema.names
    listed = ", ".join(names)
    wanted = ask(example / "warehouse.duckdb", f"SELECT {listed} FROM focus.cost_and_usage")
    assert list(zip(*(column.to_pylist() for column in parquet.columns), strict=True)) == wanted
    with (delivered / "cost_and_usage.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == names
    for row, values in zip(rows, wanted, strict=True):
        for name, cell, value in zip(names, row, values, strict=True):
            assert cell == text(value), name
            assert not isinstance(value, Decimal) or Decimal(cell) == value
    told = metadata(delivered, "artifacts.json")
    assert told["Rows"] == len(wanted)
    for currency in ("EUR", "USD"):
        assert Decimal(told["BilledCost"][currency]) == sum(w[0] for w in wanted if w[3] == currency)
    assert names == sorted(n for n in names if n[:2] != "x_") + sorted(n for n in names if n[:2] == "x_")


def text(value: Any) -> str:
    """As FOCUS writes it."""
    if isinstance(value, datetime):
        at = value.astimezone(UTC)
        return f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{at:%f}" if at.microsecond else "") + "Z"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)


def test_the_same_numbers_give_the_same_bytes_even_from_a_warehouse_made_anew(
    example: Path,  # noqa: F811
    delivered: Path,
    tmp_path: Path,
) -> None:
    line = offline(shutil.copytree(example, tmp_path / "data"))
    line.publish(anew=True)
    exported(line, tmp_path / "again")
    assert bytes_of(tmp_path / "again") == bytes_of(delivered)
    again = metadata(tmp_path / "again", "artifacts.json")
    for artifact in again["Artifacts"]:
        content = (tmp_path / "again" / artifact["File"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artifact["Sha256"]
        assert len(content) == artifact["Bytes"]
        assert (tmp_path / "again" / "metadata" / "schemas" / f"{artifact['SchemaId']}.json").is_file()


def test_a_month_has_the_corrections_that_are_booked_in_it_and_they_name_what_they_correct(
    example: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    line = offline(example)
    may, june, both = (exported(line, tmp_path / name, *months) for name, months in (
        ("may", ["2026-05"]), ("june", ["2026-06"]), ("both", ["2026-05", "2026-06"]))
    )  # fmt: skip
    assert may.tally + june.tally == both.tally
    assert list(june.periods) == ["2026-06"]
    assert june.periods["2026-06"] == dict.fromkeys(("Infobip", "Plivo", "Talkdesk", "YCloud"), "Open")
    assert may.periods["2026-05"]["Talkdesk"] == "Closed"
    rows = pq.read_table(tmp_path / "june" / "cost_and_usage.parquet").to_pylist()
    corrections = [row for row in rows if row["ChargeClass"] == "Correction"]
    assert {(row["x_Provider"], row["x_BillingPeriod"]) for row in corrections} == {("talkdesk", "2026-06")}
    assert {row["ChargePeriodStart"] for row in corrections} == {datetime(2026, 5, 1, tzinfo=UTC)}
    corrected = {row["x_CorrectionOf"] for row in corrections} - {None}
    keys = [row["x_ChargeKey"] for row in pq.read_table(tmp_path / "both" / "cost_and_usage.parquet").to_pylist()]
    assert corrected
    assert corrected <= set(keys)
    assert len(keys) == len(set(keys))


def test_billing_periods_say_when_a_correction_was_booked_in_them(example: Path) -> None:  # noqa: F811
    rows = ask(
        example / "warehouse.duckdb",
        "SELECT BillingPeriodLastUpdated FROM focus.billing_period WHERE InvoiceIssuerName = 'Talkdesk' "
        "AND x_BillingPeriod = '2026-06'",
    )
    approved = ask(
        example / "warehouse.duckdb", "SELECT x_DecidedAt FROM finality_ledger WHERE x_Decision = 'approved'"
    )
    assert rows == approved


def test_recency_says_of_every_day_whether_it_may_still_change(delivered: Path) -> None:
    recency = metadata(delivered, "recency/cost_and_usage.json")
    sectors = {(s["TimeSectorStart"], s["TimeSectorEnd"]): s for s in recency["TimeSectors"]}
    assert len(sectors) == len(recency["TimeSectors"])
    days = [(s, e) for s, e in sectors if s.endswith("T00:00:00Z") and s[:8] == e[:8]]
    assert len(days) == 30 + 29  # of May and June; the last days end in the next month
    for (start, end), sector in sectors.items():
        assert sector["TimeSectorComplete"] is (end <= "2026-06-01T00:00:00Z"), (start, end)
        assert sector["TimeSectorLastUpdated"] <= recency["RecencyLastUpdated"]
    assert ("2026-04-30T16:00:00Z", "2026-05-01T16:00:00Z") in sectors  # YCloud's first of May
    assert ("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z") in sectors  # Talkdesk's May
    assert metadata(delivered, "recency/billing_period.json")["DatasetInstanceComplete"] is False


def test_a_month_that_one_account_never_brought_is_told_incomplete_and_not_closed(company: Company) -> None:
    company.do(company.month("plivo", "emea", "2026-05"))
    company.line.publish()
    folder = company.line.data.parent / "out"
    done = exported(company.line, folder, "2026-05")
    assert done.periods == {"2026-05": {"Plivo": "Open"}}
    assert "plivo/main 2026-05" in done.missing
    assert "plivo/emea 2026-05" not in done.missing
    recency = metadata(folder, "recency/cost_and_usage.json")
    assert not any(sector["TimeSectorComplete"] for sector in recency["TimeSectors"])
    company.do(company.month("plivo", "main", "2026-05"))
    company.line.publish()
    assert exported(company.line, folder, "2026-05").periods == {"2026-05": {"Plivo": "Closed"}}


def test_a_month_that_holds_nothing_but_corrections_is_an_open_billing_period(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    company.world.seed = "another company"
    company.do(may, explicit=True)
    company.line.approve(may, "somebody", "agreed by mail")
    company.line.publish()
    found = company.ask(
        "SELECT DISTINCT x_BillingPeriod, BillingPeriodStart, InvoiceIssuerName FROM focus.cost_and_usage "
        "SEMI JOIN focus.billing_period USING (x_BillingPeriod, BillingPeriodStart, BillingPeriodEnd, InvoiceIssuerName)"
    )
    assert [row[0] for row in sorted(found)] == ["2026-05", "2026-06"]
    assert company.ask(
        "SELECT BillingPeriodStatus, BillingPeriodCreated <= BillingPeriodLastUpdated FROM focus.billing_period "
        "WHERE x_BillingPeriod = '2026-06'"
    ) == [("Open", True)]


def test_the_schema_describes_the_parquet_file_and_a_change_of_columns_needs_a_new_date(delivered: Path) -> None:
    instances = {i["DatasetInstanceId"]: i["FocusDatasetId"] for i in metadata(delivered, "dataset_instances.json")}
    assert instances == {"cost_and_usage": "CostAndUsage", "billing_period": "BillingPeriod"}
    known = {}
    for artifact in metadata(delivered, "artifacts.json")["Artifacts"]:
        schema = metadata(delivered, f"schemas/{artifact['SchemaId']}.json")
        assert schema["DatasetInstanceId"] == artifact["DatasetInstanceId"]
        if not artifact["File"].endswith(".parquet"):
            continue
        file = pq.read_schema(delivered / artifact["File"])
        assert file.metadata[b"SchemaId"].decode() == artifact["SchemaId"]
        told = [(c["ColumnName"], c["DataType"]) for c in schema["ColumnDefinition"]]
        assert told == [(c.name, kind(c)) for c in file]
        assert all(c["x_Meaning"] for c in schema["ColumnDefinition"])
        known[schema["DatasetInstanceId"]] = hashlib.sha256(repr(told).encode()).hexdigest()[:12]
        assert schema["CreationDate"] == "2026-11-22T00:00:00Z"
    assert known == COLUMNS_OF_2026_11_22


def kind(column: pa.Field) -> str:
    if column.name == "x_Dimensions":
        return "JSON"
    names = {"string": "STRING", "decimal128(38, 18)": "DECIMAL", "timestamp[us, tz=UTC]": "DATETIME"}
    return {**names, "bool": "BOOLEAN", "date32[day]": "DATE"}[str(column.type)]


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(example: Path, tmp_path: Path) -> None:  # noqa: F811
    line, out = offline(example), tmp_path / "out"
    exported(line, out, "2026-05")
    before = bytes_of(out)
    with pytest.raises(NothingToExport, match="nothing is held of 2026-07; the warehouse has 2026-05, 2026-06"):
        exported(line, out, "2026-05", "2026-07")
    assert bytes_of(out) == before
    (tmp_path / f".out.{2**22 + 1}.new").mkdir()  # of a process that was killed: no process has such a number
    exported(line, out, "2026-06")
    assert bytes_of(out)["cost_and_usage.csv"] != before["cost_and_usage.csv"]
    assert [file.name for file in sorted(tmp_path.glob(".out*"))] == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something that is no FOCUS export"):
        exported(line, tmp_path / "mine")
    assert bytes_of(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_an_export_that_was_killed_between_its_two_renames_is_put_back(example: Path, tmp_path: Path) -> None:  # noqa: F811
    line, out = offline(example), tmp_path / "out"
    exported(line, out, "2026-05")
    before = bytes_of(out)
    out.rename(tmp_path / f".out.{2**22 + 1}.old")
    with pytest.raises(NothingToExport):
        exported(line, out, "2026-07")
    assert bytes_of(out) == before


def test_texts_stay_as_they_are_and_those_that_a_spreadsheet_would_run_are_counted(tmp_path: Path) -> None:
    texts = ["=1+1", "@SUM(A1)", "+49 30", "-5", "\tx", 'quo"te, comma', "two\nlines", "", None, " =1", "a=b"]
    amounts = [("USD", Decimal(-1))] * len(texts)
    entry = store(tmp_path, MAY, amounts, ChargeDescription=pa.array(texts, pa.string()))[1]
    Warehouse(tmp_path).publish(Lake(tmp_path).all(), [entry], ISSUERS)
    done = export.focus_1_4(tmp_path / "warehouse.duckdb", providers(), [], tmp_path / "out", "test")
    assert done.formulas == {"ChargeDescription": 5}
    assert metadata(tmp_path / "out", "artifacts.json")["Formulas"] == {"ChargeDescription": 5}
    read = f"read_csv('{tmp_path}/out/cost_and_usage.csv', all_varchar = true, allow_quoted_nulls = false)"
    with duckdb.connect() as db:
        assert [row[0] for row in db.execute(f"SELECT ChargeDescription FROM {read}").fetchall()] == texts
        assert db.execute(f"SELECT DISTINCT BilledCost FROM {read}").fetchall() == [("-1.000000000000000000",)]


def test_a_month_without_charges_is_exported_as_one(tmp_path: Path) -> None:
    entries = [store(tmp_path, MAY, [])[1], store(tmp_path, JUNE, [("USD", Decimal(1))])[1]]
    Warehouse(tmp_path).publish(Lake(tmp_path).all(), entries, ISSUERS)
    done = export.focus_1_4(
        tmp_path / "warehouse.duckdb", providers(), [BillingPeriod(2026, 5)], tmp_path / "out", "test"
    )
    assert (done.tally.rows, done.periods) == (0, {"2026-05": {"Plivo": "Open"}})
    assert pq.read_table(tmp_path / "out" / "cost_and_usage.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "out" / "billing_period.parquet").num_rows == 1


@pytest.mark.parametrize("provider", ["infobip", "plivo", "talkdesk", "ycloud"])
def test_every_field_of_the_bytes_is_where_the_mapping_says(
    example: Path,  # noqa: F811
    delivered: Path,
    provider: str,
) -> None:
    line = offline(example)
    told = metadata(delivered, "mapping.json")["Providers"][provider]
    assert told["Fields"] == {name: list(columns) for name, columns in line.providers[provider].fields.items()}
    rows = pq.read_table(delivered / "cost_and_usage.parquet").to_pylist()
    columns = {column for columns in told["Fields"].values() for column in columns}
    assert columns <= set(rows[0])
    met: set[str] = set()
    for row in [row for row in rows if row["x_Provider"] == provider and not row["ChargeClass"]][::7]:
        for path, value in raw(example, row["x_RowSource"]):
            met.add(path)
            if path in told["NotExported"] or any(path.startswith(f"{name}.") for name in told["NotExported"]):
                continue
            assert path in told["Fields"], path
            if value not in (None, "", "N/A"):
                assert any(holds(row, column, path, value) for column in told["Fields"][path]), (path, value, row)
    assert len(met & set(told["Fields"])) > 7


def holds(row: dict[str, Any], column: str, path: str, value: Any) -> bool:
    """Whether a column of a row has a provider's value, as it is or in FOCUS's spelling of dates."""
    held = row[column]
    if column == "x_Dimensions":
        inner = json.loads(held).get(path.rpartition(".")[2])
        return inner == value or str(inner) == str(value)
    if isinstance(held, Decimal):
        return held == Decimal(str(value))
    if isinstance(held, datetime):
        return text(held).startswith(str(value)[:7]) or column == "ChargePeriodEnd"
    return str(held) == str(value)


def raw(data: Path, source: str) -> Iterator[tuple[str, Any]]:
    """The fields of the row that x_RowSource points to, and of the objects around it, by their paths."""
    place, _, pointer = source.partition("#")
    landing, _, number = place.rpartition("/")
    answer = pages(data, landing)[int(number)]
    value, path = answer, ""
    for step in pointer.split("/")[1:]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if not isinstance(inner, list) and name != step and not (isinstance(inner, dict) and name[0] == "_"):
                    yield from leaves(f"{path}{name}", inner)
            value, path = value[step], f"{path}{step}."
        else:
            names = None
            if isinstance(value[int(step)], list):  # Infobip: the names stand once, beside the rows
                names = [c["columnName"] for c in answer["response"]["columns"]]
            value, path = value[int(step)], path.rstrip(".") + "[]."
            if names:
                value = dict(zip(names, value, strict=True))
    yield from ((f"{path}{name}", inner) for name, inner in value.items())


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(f"{path}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(f"{path}[]", inner)
    else:
        yield path, value


@cache
def pages(data: Path, landing: str) -> dict[int, Any]:
    return {page.number: json.loads(page.read(), parse_float=Decimal) for page in Landings(data).get(landing)}


def test_an_export_holds_what_the_providers_state_and_is_left_where_the_judges_look(company: Company) -> None:
    titles = {name: provider.title for name, provider in company.line.providers.items()}
    stated: dict[tuple[str, str, str], dict[str, Decimal]] = {}

    def note(month: Partition, what: str, totals: dict[str, Decimal], sign: int = 1) -> None:
        for currency, amount in totals.items():
            row = stated.setdefault((month.provider, str(month.period), currency), dict.fromkeys(AMOUNTS, Decimal(0)))
            row[what] += sign * amount

    for period in ("2026-05", "2026-06"):
        for provider, account in ACCOUNTS:
            month = company.month(provider, account, period)
            company.do(month)
            note(month, "billed", company.stated(month)[1])
    closed = [company.month("plivo", "emea", "2026-05"), company.month("talkdesk", "main", "2026-05")]
    before = [company.stated(month)[1] for month in closed]
    company.world.seed = "another company"
    for month, held in zip(closed, before, strict=True):
        assert company.do(month, explicit=True).action == "restated"
        company.line.approve(month, "somebody", "agreed by mail")
        june = replace(month, period=BillingPeriod(2026, 6))
        note(june, "corrections", company.stated(month)[1])
        note(june, "corrections", held, -1)
    company.line.publish()
    for provider, period, currency, paid in company.ask(
        "SELECT x_Provider, x_BillingPeriod, BillingCurrency, sum(BilledCost) FROM charges WHERE x_IsPrepayment GROUP BY ALL"
    ):
        stated[provider, period, currency]["paid_in"] = paid
    folder = company.line.data.parent / "judged"
    exported(company.line, folder / "export")
    rows = pq.read_table(folder / "export" / "cost_and_usage.parquet").to_pylist()
    sums: dict[tuple[str, str, str], Decimal] = {}
    for row in rows:
        key = (row["x_Provider"], row["x_BillingPeriod"], row["BillingCurrency"])
        sums[key] = sums.get(key, Decimal(0)) + row["BilledCost"]
    assert sums == {key: amounts["billed"] + amounts["corrections"] for key, amounts in stated.items()}
    told = []
    for (provider, period, currency), amounts in sorted(stated.items()):
        zone, month_ = company.line.providers[provider].calendar.timezone, BillingPeriod.parse(period)
        told.append(
            {
                "ServiceProviderName": titles[provider],
                "InvoiceIssuerName": titles[provider],
                "BillingCurrency": currency,
                "BillingPeriodStart": stamp(month_.start(zone)),
                "BillingPeriodEnd": stamp(month_.end(zone)),
                **{name: str(amount) for name, amount in amounts.items()},
            }
        )
    (folder / "stated.json").write_text(json.dumps(told, indent=1))
    shutil.copy(company.line.warehouse.path, folder)
    if target := os.environ.get("FOCUS_EXPORT"):
        shutil.copytree(folder, target, dirs_exist_ok=True)
