"""What a killed run leaves behind, and its sweeping.

Every temporary name below the data folder is one of these:

    raw/<provider>/<account>/<month>/.*.tmp                 a landing that is not complete, or one that is being dropped
    raw/<provider>/<account>/invoices/.*.tmp                a list of invoices likewise
    raw/<provider>/<account>/.ledger.seal.tmp               the next seal
    charges/x_BillingPeriod=<month>/.<provider>--<account>.*.tmp   a month's next file, or its next corrections
    history/x_BillingPeriod=<month>/<provider>--<account>/.*.tmp   the next file of what a fetch changed
    failures/.<provider>--<account>--<month>.json.tmp       how its last try failed
    invoice-lists/.<provider>--<account>.json.tmp           what came when a list of invoices was asked for
    untold/.<name>.*.tmp                                    what Dagster does not know of yet
    .<provider>--<account>.*.tmp                            of earlier versions
    .warehouse.duckdb.<process>.*                           the next warehouse, and what DuckDB keeps beside it
    .warehouse.duckdb.files.*                               second names of the files it is made of
    .verify.duckdb, ..verify.duckdb.*                       the warehouse that `verify` compares the published one with
    reports/.<page>.*.tmp                                   the next page of a report

Those of an account are swept by whoever holds its lock, the warehouse's by whoever holds the warehouse's, and those of `verify`
likewise; a page's by whoever makes the next report, unless its writer lives: so nothing is swept that somebody is writing, but
what is made ahead without the lock and made as ever when it is gone: a month's file (`ahead`), the tables of a new warehouse.
Drafts in data/mailbox go with their ticket, the one in data/alerts is written over, lock files stay. What is needed for a moment
only lies elsewhere: see `scratch`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

VERIFY = ".verify.duckdb"


def sweep_account(data: Path, provider: str, account: str) -> None:
    """Remove what killed runs left of an account. The caller holds the account's lock."""
    name = f"{provider}--{account}"
    raw = data / "raw" / provider / account
    remove(raw.glob("????-??/.*.tmp"))
    remove(raw.glob("invoices/.*.tmp"))
    remove(raw.glob(".*.tmp"))
    remove((data / "charges").glob(f"x_BillingPeriod=*/.{name}.*.tmp"))
    remove((data / "history").glob(f"x_BillingPeriod=*/{name}/.*.tmp"))
    remove((data / "failures").glob(f".{name}--*.tmp"))
    remove(data.glob(f"invoice-lists/.{name}.*.tmp"))
    remove(data.glob(f"untold/.{name}[.-]*.tmp"))
    remove(data.glob(f".{name}.*.tmp"))


def sweep_warehouse(path: Path) -> None:
    """Remove what killed runs left of a warehouse's next file. The caller is the only one who may publish it."""
    remove(path.parent.glob(f".{path.name}.[0-9]*"))
    remove(path.parent.glob("untold/.warehouse*.tmp"))


@contextmanager
def files_of(warehouse: Path) -> Iterator[Path]:
    """A folder for second names of the files that a warehouse is made of. The caller is the only one who may publish it."""
    stem = f".{warehouse.name}.files."
    warehouse.parent.mkdir(parents=True, exist_ok=True)
    remove(warehouse.parent.glob(f"{stem}*"))
    with TemporaryDirectory(prefix=stem, dir=warehouse.parent) as folder:
        yield Path(folder)


def sweep_verify(data: Path) -> None:
    """Remove what a killed `verify` left. The caller holds its lock."""
    remove([*data.glob(f".{VERIFY}.*"), *data.glob(f"{VERIFY}*")])


def accounts(data: Path) -> set[tuple[str, str]]:
    """Every account, configured or not, of which there is anything below the data folder."""
    found = {(folder.parent.name, folder.name) for folder in (data / "raw").glob("*/*/")}
    names = [path.name.removeprefix(".").split(".")[0] for path in (data / "charges").glob("x_BillingPeriod=*/*--*")]
    names += [path.name for path in (data / "history").glob("x_BillingPeriod=*/*--*")]
    names += [path.name.removeprefix(".").split(".")[0] for path in data.glob(".*--*.tmp")]
    return found | {(name.partition("--")[0], name.partition("--")[2]) for name in names}


def remove(paths: Iterable[Path]) -> None:
    """Files and folders, whatever is in them; what is gone already is fine."""
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
