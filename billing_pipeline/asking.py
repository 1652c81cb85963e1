"""`billing-pipeline sql`: questions to the published warehouse, read-only, answered as a table, CSV or JSON.

Every statement opens the file anew and so sees the newest publication; nobody waits for anybody.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .reconcile import plain

if TYPE_CHECKING:  # see scratch
    import duckdb

Form = Literal["table", "csv", "json"]
PROMPT, MORE = "billing> ", "    ...> "
HELP = "A statement ends with ;  .tables lists the views, .columns NAME explains one, .quit (or Ctrl-D) ends."


class NothingPublished(Exception):
    """There is no warehouse yet."""

    rerun = "no"
    remedy = "Type: billing-pipeline refresh"


class Unanswerable(Exception):
    """The question is no SQL, names what is not there, writes, or cannot be answered in that form."""

    rerun = "no"
    remedy = "Ask otherwise; billing-pipeline sql --tables lists the views"


class Answer(NamedTuple):
    """What a statement brought."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@contextmanager
def opened(path: Path, memory: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, read-only, with instants in UTC; `memory` that it may use (`80MB`), None: most of what there is.

    Raises:
        NothingPublished: there is no such file.
        Unanswerable: DuckDB cannot open it, or refuses a statement while it is open.
    """
    import duckdb

    if not path.exists():
        raise NothingPublished(f"{path} is not there: nothing was published yet")
    try:
        with duckdb.connect(str(path), read_only=True, config={"memory_limit": memory} if memory else {}) as db:
            db.execute("SET TimeZone = 'UTC'").fetchall()
            yield db
    except duckdb.Error as error:
        raise Unanswerable(str(error)) from error


def ask(path: Path, text: str, memory: str | None = None) -> Iterator[Answer]:
    """The answers to all statements of `text`, in their order. Raises as `opened`."""
    with opened(path, memory) as db:
        for statement in db.extract_statements(text):
            db.execute(statement)
            columns = [name for name, *_ in db.description or ()]
            yield Answer(columns, db.fetchall() if columns else [])


def views(path: Path) -> list[tuple[str, str]]:
    """Name and comment of every table and view that is meant for people, views of FOCUS last. Raises as `opened`."""
    query = (
        "SELECT schema_name, name, comment FROM ("
        "SELECT schema_name, view_name AS name, comment FROM duckdb_views() WHERE NOT internal "
        "UNION ALL SELECT schema_name, table_name, comment FROM duckdb_tables() WHERE NOT internal "
        "UNION ALL SELECT schema_name, function_name || '(instant)', comment FROM duckdb_functions() WHERE NOT internal"
        ") WHERE NOT starts_with(name, 'x_') ORDER BY schema_name <> 'main', name"
    )
    ((_, rows),) = ask(path, query)
    return [(name if schema == "main" else f"{schema}.{name}", comment) for schema, name, comment in rows]


def show(answer: Answer, form: Form, console: Console, most: int) -> None:
    """Print an answer.

    Args:
        answer: to be shown.
        form: table: columns side by side, or one below the other where they do not fit. csv and json have every row.
        console: whose width is used, and whose file is written to.
        most: rows of a table; how many more there are is said. 0: all.

    Raises:
        Unanswerable: two columns of a JSON object would have the same name.
    """
    if form == "csv":
        _csv(answer, console.file)
    elif form == "json":
        twice = [name for name, count in Counter(answer.columns).items() if count > 1]
        if twice:
            raise Unanswerable(f"two columns are called {', '.join(twice)}: give them other names with AS")
        objects = [dict(zip(answer.columns, map(_json, row), strict=True)) for row in answer.rows]
        console.file.write(json.dumps(objects, ensure_ascii=False, indent=1) + "\n")
    else:
        rows = answer.rows[: most or None]
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(answer.columns, *cells, strict=True)]
        if sum(widths) + 2 * len(widths) <= console.width:
            console.print(_side_by_side(answer, cells))
        else:
            _below_each_other(answer, cells, console)
        left = len(answer.rows) - len(rows)
        if left:
            console.print(f"... and {left} more rows; --rows 0, --csv and --json show all", style="dim")


def prompt(path: Path, console: Console) -> None:
    """Read statements from the terminal and answer them, until its end. Raises NothingPublished."""
    names = views(path)
    try:
        import readline  # what makes input() know arrow keys; absent on Windows
    except ImportError:
        pass
    else:
        words = sorted(name for name, _ in names)
        readline.set_completer(lambda text, number: [*(word for word in words if word.startswith(text)), None][number])
        readline.set_completer_delims(" \t\n,;()")
        readline.parse_and_bind("tab: complete")
    _list(names, console)
    console.print(HELP, style="dim", markup=False, highlight=False)
    typed = ""
    while True:
        try:
            typed += input(MORE if typed else PROMPT) + "\n"
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            typed = ""
            continue
        told = typed.split()
        if told[:1] == [".quit"]:
            return
        if not told or typed.rstrip().endswith(";") or typed.startswith("."):
            question, typed = typed, ""
            try:
                _one(path, question, told, console)
            except (NothingPublished, Unanswerable) as error:
                console.print(str(error), style="red", markup=False, highlight=False)


def _one(path: Path, question: str, told: list[str], console: Console) -> None:
    if told[:1] == [".tables"]:
        _list(views(path), console)
    elif told[:1] == [".columns"] and len(told) == 2:
        schema, _, name = told[1].rstrip(";").rpartition(".")
        show(_columns(path, schema or "main", name), "table", console, 0)
    elif question.startswith("."):
        console.print(HELP, markup=False, highlight=False)
    else:
        for answer in ask(path, question):
            show(answer, "table", console, 100)


def _columns(path: Path, schema: str, name: str) -> Answer:
    with opened(path) as db:
        db.execute(
            "SELECT column_name AS name, data_type AS type, comment AS meaning FROM duckdb_columns() "
            "WHERE schema_name = $1 AND table_name = $2 ORDER BY column_index",
            [schema, name],
        )
        found = db.fetchall()
    if not found:
        raise Unanswerable(f"there is no table or view {name}: .tables lists them")
    return Answer(("name", "type", "meaning"), found)


def _list(names: list[tuple[str, str]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, comment in names:
        table.add_row(Text(name), Text(comment))
    console.print(table)


def listed(path: Path, form: Form, console: Console) -> None:
    """Print the views that there are. Raises as `opened`."""
    if form == "table":
        _list(views(path), console)
    else:
        show(Answer(("name", "comment"), views(path)), form, console, 0)


def typed_in(stream: TextIO = sys.stdin) -> str | None:
    """What is piped into this program; None when a person sits in front of it."""
    return None if stream.isatty() else stream.read()


def _side_by_side(answer: Answer, cells: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(answer.columns):
        values = [row[number] for row in answer.rows]
        right = any(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values)
        table.add_column(Text(name), justify="right" if right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _below_each_other(answer: Answer, cells: list[list[str]], console: Console) -> None:
    for number, row in enumerate(cells, 1):
        table = Table(box=None, pad_edge=False, show_header=False, title=f"row {number}", title_justify="left")
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in zip(answer.columns, row, strict=True):
            table.add_row(Text(name), Text(value))
        console.print(table)


def _csv(answer: Answer, file: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([_cell(value) for value in row] for row in answer.rows)


def _cell(value: Any) -> str:
    """As text: every digit of an amount and no zeros behind them, instants in UTC, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix("+00:00") + ("Z" if value.tzinfo else "")
    return str(value)


def _json(value: Any) -> Any:
    """As JSON has it: an amount is text, with every digit."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
