-- Tables and views of the warehouse. Columns are FOCUS 1.4 ids; ours begin with x_. Comments on the columns of `charges`
-- come from charges.SCHEMA. Money is DECIMAL(38,18), and is never added across BillingCurrency.

CREATE TABLE billing_periods (
    x_Provider         VARCHAR NOT NULL,
    x_Account          VARCHAR NOT NULL,
    x_BillingPeriod    VARCHAR NOT NULL,
    x_Finality         VARCHAR NOT NULL,
    x_FinalityRule     VARCHAR NOT NULL,
    x_FinalityEvidence JSON NOT NULL,
    x_Rows             BIGINT NOT NULL,
    x_Totals           JSON NOT NULL,
    x_FetchedAt        TIMESTAMP WITH TIME ZONE NOT NULL,
    x_FinalizedAt      TIMESTAMP WITH TIME ZONE,
    x_AvailableUntil   TIMESTAMP WITH TIME ZONE,
    x_Restated         BOOLEAN NOT NULL,
    x_LeftOut          JSON NOT NULL,
    x_Notes            JSON NOT NULL,
    x_Landing          VARCHAR NOT NULL,
    x_PeriodStart      TIMESTAMP WITH TIME ZONE NOT NULL,
    x_PeriodEnd        TIMESTAMP WITH TIME ZONE NOT NULL,
    x_InvoiceIssuerName VARCHAR NOT NULL,
    x_Corrections      JSON NOT NULL,
    x_DaysLeft         BIGINT
);
COMMENT ON TABLE billing_periods IS 'One row: one month of one account as it stands.';
COMMENT ON COLUMN billing_periods.x_Provider IS 'infobip, plivo, talkdesk or ycloud.';
COMMENT ON COLUMN billing_periods.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN billing_periods.x_BillingPeriod IS 'The calendar month on the provider''s clock, YYYY-MM.';
COMMENT ON COLUMN billing_periods.x_Finality IS 'provisional: may still change. final: closed, never overwritten.';
COMMENT ON COLUMN billing_periods.x_FinalityRule IS 'What has to be true for the month to be final.';
COMMENT ON COLUMN billing_periods.x_FinalityEvidence IS 'JSON: what was true of the fetch that decided, and the reason in words.';
COMMENT ON COLUMN billing_periods.x_Rows IS 'Charges of the month. 0 is a result: the provider was asked and billed nothing.';
COMMENT ON COLUMN billing_periods.x_Totals IS 'JSON: BilledCost by currency, as text with every digit.';
COMMENT ON COLUMN billing_periods.x_FetchedAt IS 'When the fetch started that the charges came from.';
COMMENT ON COLUMN billing_periods.x_FinalizedAt IS 'When the month was closed; null while provisional.';
COMMENT ON COLUMN billing_periods.x_AvailableUntil IS 'From this instant the provider no longer serves the month; null: no limit is documented.';
COMMENT ON COLUMN billing_periods.x_Restated IS 'True: the provider now states other numbers for this final month; they are held, not shown, until a person approves or dismisses them.';
COMMENT ON COLUMN billing_periods.x_LeftOut IS 'JSON: rows and totals that came with the fetch but belong to another month.';
COMMENT ON COLUMN billing_periods.x_Notes IS 'JSON list: what a person should hear of, such as values the provider''s page does not document.';
COMMENT ON COLUMN billing_periods.x_Landing IS 'The landing in data/raw/ that the charges were made from.';
COMMENT ON COLUMN billing_periods.x_PeriodStart IS 'First instant of the month on the provider''s clock; inclusive.';
COMMENT ON COLUMN billing_periods.x_PeriodEnd IS 'First instant after the month; exclusive.';
COMMENT ON COLUMN billing_periods.x_InvoiceIssuerName IS 'Who sends the invoice.';
COMMENT ON COLUMN billing_periods.x_Corrections IS 'JSON: BilledCost by currency of the corrections of earlier months that are booked in this one; not in x_Rows and x_Totals.';
COMMENT ON COLUMN billing_periods.x_DaysLeft IS 'Of a month that is not final: whole days for which the provider still served it when the file was published; -1: no longer; null: final, or no limit is documented.';

CREATE TABLE x_expected (
    x_Provider      VARCHAR NOT NULL,
    x_Account       VARCHAR NOT NULL,
    x_BillingPeriod VARCHAR NOT NULL,
    x_Day           DATE,
    x_DayEnd        TIMESTAMP WITH TIME ZONE NOT NULL,
    x_CoveredAt     TIMESTAMP WITH TIME ZONE,
    x_IsCovered     BOOLEAN NOT NULL,
    x_IsOverdue     BOOLEAN NOT NULL,
    x_IsDaily       BOOLEAN NOT NULL,
    x_PublishedAt   TIMESTAMP WITH TIME ZONE NOT NULL
);
COMMENT ON TABLE x_expected IS 'One row: one day of one account that ought to be held; coverage says whether it is.';
COMMENT ON COLUMN x_expected.x_Day IS 'The day on the provider''s clock; null: what is charged by the month.';
COMMENT ON COLUMN x_expected.x_DayEnd IS 'First instant after the day (of a row without a day: after the month).';
COMMENT ON COLUMN x_expected.x_CoveredAt IS 'When the newest complete fetch of the month started whose rows it shows; null: never fetched.';
COMMENT ON COLUMN x_expected.x_IsCovered IS 'True: that fetch started after the day had ended.';
COMMENT ON COLUMN x_expected.x_IsOverdue IS 'True: the day had been over for a day when the file was published, so a daily fetch should have covered it.';
COMMENT ON COLUMN x_expected.x_IsDaily IS 'False: the provider knows months only, so the row without a day is all there is.';
COMMENT ON COLUMN x_expected.x_PublishedAt IS 'When this file was published: coverage is as of then.';

CREATE TABLE finality_ledger (
    x_DecidedAt     TIMESTAMP WITH TIME ZONE NOT NULL,
    x_Provider      VARCHAR NOT NULL,
    x_Account       VARCHAR NOT NULL,
    x_BillingPeriod VARCHAR NOT NULL,
    x_Decision      VARCHAR NOT NULL,
    x_Rule          VARCHAR NOT NULL,
    x_Evidence      JSON NOT NULL,
    x_Landing       VARCHAR NOT NULL,
    x_LedgerLine    BIGINT NOT NULL
);
COMMENT ON TABLE finality_ledger IS 'One row: one decision about one month of one account. Append-only.';
COMMENT ON COLUMN finality_ledger.x_DecidedAt IS 'When it was decided.';
COMMENT ON COLUMN finality_ledger.x_Provider IS 'infobip, plivo, talkdesk or ycloud.';
COMMENT ON COLUMN finality_ledger.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN finality_ledger.x_BillingPeriod IS 'The month, YYYY-MM.';
COMMENT ON COLUMN finality_ledger.x_Decision IS 'provisional, final, restated, approved, dismissed or replayed.';
COMMENT ON COLUMN finality_ledger.x_Rule IS 'What has to be true for the month to be final.';
COMMENT ON COLUMN finality_ledger.x_Evidence IS 'JSON: what was true of the fetch, and the reason in words; of a restatement both totals.';
COMMENT ON COLUMN finality_ledger.x_Landing IS 'The fetch it rests on: a folder below data/raw/.';
COMMENT ON COLUMN finality_ledger.x_LedgerLine IS 'Which line of the account''s ledger.jsonl it is, from 1: their order is the order in which things were known.';

CREATE TABLE fetches (
    x_FetchedAt     TIMESTAMP WITH TIME ZONE NOT NULL,
    x_Provider      VARCHAR NOT NULL,
    x_Account       VARCHAR NOT NULL,
    x_BillingPeriod VARCHAR NOT NULL,
    x_Landing       VARCHAR NOT NULL,
    x_Requests      BIGINT NOT NULL,
    x_Restarts      BIGINT NOT NULL,
    x_Bytes         BIGINT NOT NULL,
    x_Sha256        VARCHAR NOT NULL,
    x_Rows          BIGINT NOT NULL,
    x_Totals        JSON NOT NULL,
    x_Gates         JSON NOT NULL,
    x_Change        JSON NOT NULL,
    x_DecidedAt     TIMESTAMP WITH TIME ZONE NOT NULL,
    x_Decision      VARCHAR NOT NULL,
    x_SameAs        VARCHAR,
    x_LedgerLine    BIGINT NOT NULL
);
COMMENT ON TABLE fetches IS 'One row: one complete fetch of one month of one account that passed its control totals.';
COMMENT ON COLUMN fetches.x_FetchedAt IS 'When it started.';
COMMENT ON COLUMN fetches.x_Provider IS 'infobip, plivo, talkdesk or ycloud.';
COMMENT ON COLUMN fetches.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN fetches.x_BillingPeriod IS 'The month, YYYY-MM.';
COMMENT ON COLUMN fetches.x_Landing IS 'Where its bytes are: a folder below data/raw/.';
COMMENT ON COLUMN fetches.x_Requests IS 'Answers received, restarted walks included.';
COMMENT ON COLUMN fetches.x_Restarts IS 'Walks over pages that had to begin anew.';
COMMENT ON COLUMN fetches.x_Bytes IS 'Bytes of all bodies, uncompressed.';
COMMENT ON COLUMN fetches.x_Sha256 IS 'Fingerprint of the landing.';
COMMENT ON COLUMN fetches.x_Rows IS 'Charges of the month in it.';
COMMENT ON COLUMN fetches.x_Totals IS 'JSON: BilledCost by currency, as text with every digit.';
COMMENT ON COLUMN fetches.x_Gates IS 'JSON list: the control totals that were compared, with what was expected and what was found.';
COMMENT ON COLUMN fetches.x_Change IS 'JSON: rows and totals against what the month held before, and the causes of it by currency; empty for the first fetch.';
COMMENT ON COLUMN fetches.x_DecidedAt IS 'When it was complete, had passed its control totals, and was decided about.';
COMMENT ON COLUMN fetches.x_Decision IS 'provisional or final: the month was that by it. unchanged or restated: the month was final before.';
COMMENT ON COLUMN fetches.x_SameAs IS 'The landing whose rows it brought again, all of them and no other; null: it brought something new, or closed the month.';
COMMENT ON COLUMN fetches.x_LedgerLine IS 'Which line of the account''s ledger.jsonl it is, from 1: their order is the order in which things were known.';

CREATE VIEW consumption AS
SELECT * FROM charges WHERE NOT x_IsPrepayment;
COMMENT ON VIEW consumption IS 'One row: one charge for something used or bought. Money paid in (RECHARGE, CREDIT_COMMIT) is left out.';

CREATE VIEW monthly_cost AS
SELECT
    x_Provider, x_Account, x_BillingPeriod, ServiceName, BillingCurrency,
    sum(BilledCost) AS BilledCost,
    sum(EffectiveCost) AS EffectiveCost,
    count(*) AS x_Rows,
    min(x_Finality) AS x_Finality
FROM charges
GROUP BY ALL
ORDER BY ALL;
COMMENT ON VIEW monthly_cost IS 'One row: one service of one account in one month and one currency. A month is provisional or final as a whole.';
COMMENT ON COLUMN monthly_cost.BilledCost IS 'Everything billed, money paid in included.';
COMMENT ON COLUMN monthly_cost.EffectiveCost IS 'The same without money paid in to cover later usage.';
COMMENT ON COLUMN monthly_cost.x_Rows IS 'How many charges.';
COMMENT ON COLUMN monthly_cost.x_Finality IS 'provisional or final.';

CREATE VIEW coverage AS
SELECT
    expected.x_Provider, expected.x_Account, expected.x_BillingPeriod, expected.x_Day,
    CASE
        WHEN x_IsOverdue AND NOT x_IsCovered THEN 'missing'
        WHEN came.x_Rows > 0 THEN 'seen'
        WHEN x_IsCovered THEN 'empty'
        ELSE 'expected'
    END AS x_Coverage,
    coalesce(came.x_Rows, 0) AS x_Rows,
    x_DayEnd, x_CoveredAt, x_PublishedAt
FROM x_expected AS expected
LEFT JOIN (
    SELECT x_Provider, x_Account, x_BillingPeriod, x_UsageDate, count(*) AS x_Rows
    FROM charges
    WHERE ChargeClass IS DISTINCT FROM 'Correction'
    GROUP BY ALL
) AS came
    ON came.x_Provider = expected.x_Provider
    AND came.x_Account = expected.x_Account
    AND came.x_BillingPeriod = expected.x_BillingPeriod
    AND came.x_UsageDate IS NOT DISTINCT FROM expected.x_Day
WHERE expected.x_Day IS NOT NULL OR NOT x_IsDaily OR came.x_Rows > 0;
COMMENT ON VIEW coverage IS 'One row: one day of one account from history_from on, and whether it is held; without a day: what is charged by the month.';
COMMENT ON COLUMN coverage.x_Coverage IS 'seen: there are charges. empty: a complete fetch that began after the day brought none. missing: the day has been over for a day, and no complete fetch began after it (x_Rows > 0: a part of it is there). expected: not over, or only just.';
COMMENT ON COLUMN coverage.x_Rows IS 'Charges of the day.';
