"""What communications providers charge, to the last digit. This is the map.

    a provider's API
        │  bytes       providers/<name>     fetch       asks, over transport (or by callback: callbacks, mailbox)
        ▼
    landing            landing.py, bodies.py            data/raw/: the bytes as they came, complete or absent
        │  rows        providers/<name>     parse       whole columns at a time, with rows
        │              providers/<name>     statement   the same bytes, counted by another parser
        ▼
    Arrow              charges.py                       one schema; what does not fit is refused, never rounded
        │              reconcile.py                     stated = counted = Arrow = Parquet = DuckDB, or nothing is replaced
        │              finality.py                      provisional or final, and why
        ▼
    Parquet            lake.py, ledger.py               data/charges/: a file per month and account; every decision, for ever
        ▼
    warehouse          warehouse.py                     data/warehouse.duckdb: a copy brought up to date, then one rename
        ▼
    views              warehouse.sql, focus.sql         charges, billing_periods, monthly_cost, consumption, focus.*, ...
        │
        ▼
    reports            month_facts.py, report.html      data/reports/: a page for each month, to read and to print

The modules, from the inside out; each may import those above it, and a test says so:

    misconfigured      that a configuration cannot be used
    progress           how far a month is, for whoever watches
    period             one calendar month on a provider's clock
    finality           the finalization rule: when a month is final, which months are open, which are lost
    reconcile          control totals: what the provider states = what we hold
    schema             the common schema: the columns of a charge, in FOCUS names, and what they mean
    charges            the one place where rows are made to fit it
    shapes             JSON texts as structs, for several threads at once
    rows               JSON rows → Arrow columns, exactly
    answers            what asking a provider comes to: a complete answer, or why there is none
    deadline           connections that end at an instant
    pace               rate limits, and how many requests they leave just now
    terminal           sentences, bars and JSON documents for whoever typed a command
    redaction          texts without secrets, however those are written
    transport          how we speak HTTP: time limits, retries, rate limits, credentials to the configured host alone
    drafts             files that are being written: locked by their writer, swept when he died, within the room there is
    mailbox            answers that arrive by callback, as files
    callbacks          the receiver that puts them there
    provider           what a provider is: three functions and a few facts
    providers/         who they are: every module or package in this folder is a provider
    accounts           accounts.toml: which accounts of which providers, with which secrets
    leftovers          what a killed run leaves behind, and its sweeping
    invoices           the real invoices: what invoices.toml says of them, as rows of the warehouse
    beside             a thread that does one thing after another
    bodies             how the pages of a landing lie on disk, and are checked when they are read
    landing            data/raw/: a provider's bytes, untouched and for ever
    following          a landing that is still being written, read while it grows
    together           pages that two readers read at the same time, found on disk and checked once
    failures           what went wrong, said in one way; data/failures/: the months whose last try failed
    ledger             data/raw/.../ledger.jsonl: every decision about every month
    scratch            what is needed for a moment only: a folder, a DuckDB in memory
    lake               data/charges/: one Parquet file per account and month
    matching           which charge of one fetch is which charge of another
    history            data/history/: what each fetch changed in its month, and why
    lifecycle          the ledger as FOCUS billing periods, open, then closed: for an outside judge
    coverage           which days ought to be held of every account, and which fetch covers them
    overlap            whether two accounts of a provider bring the same charges
    stored             the charges of months in the warehouse: what is their own, and what they share
    layout             the warehouse's tables and views: the charges out of the schema, the rest out of *.sql
    warehouse          data/warehouse.duckdb, a projection of the lake and the ledger
    comparing          whether a provider still states what is held of a final month
    making             a month's next file: the rows of a landing, counted against what it states about itself
    loading            one month: from its landing to its Parquet file and its line in the ledger
    corrections        a final month that the provider states anew: held, then approved or dismissed
    snapshot           lake and ledger as they stood at one instant, while others go on working
    invoice_lists      a provider's own list of invoices, landed
    line               the line drawn once: fetch, load, publish
    alerts             what is wrong now, in sentences for a person
    delivery           alerts by webhook and e-mail; data/alerts/: each once a day
    replay             `billing-pipeline replay`: everything that is derived, made again from the landings
    equality           whether two warehouses hold the same
    verify             `billing-pipeline verify`: whether everything agrees, and what was touched
    asking             `billing-pipeline sql`: questions to the warehouse, read-only
    invoiced           what is said of invoices: months that disagree with theirs, lists that are not available
    environment        the one place that reads variables, .env and the clock
    importing          what makes a command start faster: importing less, and undisturbed
    development_plot   how a month's total developed, as a picture
    reports            what a run says about itself in the Dagster UI
    untold             data/untold/: what was done in the foreground, and Dagster does not know of yet
    telling            what Dagster is told of besides its own runs
    month_facts        what a month's report says, asked of the warehouse
    month_tables       its tables
    month_plots        its plots
    month_page         facts, tables and plots as one HTML file: report.html and beside it
    month_files        `billing-pipeline report`; data/reports/
    focus              what accompanies a FOCUS export: metadata, and how every field is mapped
    export             `billing-pipeline export focus`: months of the warehouse as FOCUS 1.4 files
    as_of              the full rows of a month as they were believed at a past instant
    under_way          runs of Dagster that were killed hold up nobody
    assets             the line as Dagster sees it
    alert_sensors      the sensors that send alerts while the daemon runs
    definitions        when it runs, and with what: the schedule and the sensors
    status             the months held, lost or waiting, as a table
    child              a process of this program's own, and how to speak with it
    ahead              a month's file made while the rest of the month is still being fetched
    account_work       one account's part of a refresh
    account_process    a process of its own for an account that keeps the interpreter busy
    refresh            the line in the foreground: `billing-pipeline refresh`
    restatements       `billing-pipeline restatements`, `approve`, `dismiss`
    ui                 `billing-pipeline ui`
    completion         what a shell offers after TAB
    sandbox/           a stand-in for the four APIs; imports nothing of the above
    commands/          what can be typed, a module for each part of a life with it
    __main__           the command line
"""
