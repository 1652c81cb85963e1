"""A reader of the warehouse, in a process of its own, with any version of DuckDB: needs nothing else.

    python reading.py WAREHOUSE COMMAND [SECONDS]

    loop    until standard input ends: open the file, and in one transaction ask the same again and again while holding it open
    ask     ask every table, view and macro once, and say in JSON which of them answer

Every transaction must hold whole publications only: the charges are the sums that `billing_periods` has, and stay the same.
"""

import json
import sys
import threading
from decimal import Decimal

import duckdb

TOTALS = """
    SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, sum(BilledCost), count(*)
    FROM charges WHERE ChargeClass IS DISTINCT FROM 'Correction' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
STATED = "SELECT x_Provider, x_Account, x_BillingPeriod, x_Totals, x_Rows FROM billing_periods ORDER BY 1, 2, 3"
AS_OF = """
    SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, sum(BilledCost)
    FROM totals_as_of(TIMESTAMPTZ '9999-01-01 00:00:00+00') GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
OBJECTS = [
    "charges", "billing_periods", "x_expected", "finality_ledger", "fetches", "history", "consumption", "monthly_cost",
    "coverage", "drift", "accrual_estimate", "focus.cost_and_usage", "focus.billing_period",
    "totals_as_of(TIMESTAMPTZ '9999-01-01 00:00:00+00')",
]  # fmt: skip


def whole(db):
    """What the months are, after it was compared with what billing_periods and the history say of them."""
    totals = db.execute(TOTALS).fetchall()
    months, rows = {}, {}
    for *month, currency, total, count in totals:
        months.setdefault(tuple(month), {})[currency] = total
        rows[tuple(month)] = rows.get(tuple(month), 0) + count
    for *month, stated, count in db.execute(STATED).fetchall():
        amounts = {currency: Decimal(amount) for currency, amount in json.loads(stated).items()}
        got = (rows.pop(tuple(month), 0), months.pop(tuple(month), {}))
        if got != (count, amounts):
            raise AssertionError(f"{month}: the charges are {got}, billing_periods says {count}, {amounts}")
    if months:
        raise AssertionError(f"billing_periods has nothing of {months}")
    if db.execute("SELECT count(*) FROM charges WHERE ChargeClass = 'Correction'").fetchall() == [(0,)]:
        believed = [row for row in db.execute(AS_OF).fetchall() if row[-1]]
        if believed != [row[:5] for row in totals if row[4]]:
            raise AssertionError(f"totals_as_of says {believed}, the charges are {totals}")
    return totals


def loop(path):
    """Read until standard input ends; say how often, and how many different publications were seen."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    transactions, queries, seen = 0, 0, set()
    while not ended.is_set() or not transactions:
        with duckdb.connect(path, read_only=True) as db:
            db.execute("BEGIN")
            first = whole(db)
            for _ in range(3):
                again = whole(db)
                queries += 1
                if again != first:
                    raise AssertionError("the same query in the same transaction gave something else")
                ended.wait(0.2)
            db.execute("COMMIT")
        seen.add(str(first))
        transactions += 1
        if transactions == 1:
            sys.stdout.write("reading\n")
            sys.stdout.flush()
    return {"transactions": transactions, "queries": queries, "publications": len(seen)}


def ask(path):
    """Which objects answer, and the errors of the others."""
    answers = {}
    with duckdb.connect(path, read_only=True) as db:
        for name in OBJECTS:
            try:
                answers[name] = len(db.execute(f"SELECT * FROM {name}").fetchall())
            except duckdb.Error as error:
                answers[name] = str(error).splitlines()[0]
        answers["whole"] = len(whole(db))
    return {"version": duckdb.__version__, "answers": answers}


if __name__ == "__main__":
    found = {"loop": loop, "ask": ask}[sys.argv[2]](sys.argv[1])
    sys.stdout.write(json.dumps(found) + "\n")
