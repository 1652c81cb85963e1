-- What was believed at any past instant, how months moved, and what an open one may still bring.

CREATE TABLE history (
    x_DecidedAt     TIMESTAMP WITH TIME ZONE NOT NULL,
    x_LedgerLine    BIGINT NOT NULL,
    x_Provider      VARCHAR NOT NULL,
    x_Account       VARCHAR NOT NULL,
    x_BillingPeriod VARCHAR NOT NULL,
    x_Landing       VARCHAR NOT NULL,
    ServiceName     VARCHAR NOT NULL,
    x_UsageDate     DATE,
    BillingCurrency VARCHAR NOT NULL,
    x_Rows          BIGINT NOT NULL,
    BilledCost      DECIMAL(38,18) NOT NULL,
    x_IsCorrection  BOOLEAN NOT NULL
);
COMMENT ON TABLE history IS 'One row: one service, day and currency of a month that a fetch changed, as the month showed it from then on.';
COMMENT ON COLUMN history.x_DecidedAt IS 'From when on: when the fetch was decided about.';
COMMENT ON COLUMN history.x_LedgerLine IS 'Which line of the account''s ledger.jsonl decided it; a later line replaces an earlier one.';
COMMENT ON COLUMN history.x_Landing IS 'The fetch: a folder below data/raw/.';
COMMENT ON COLUMN history.x_Rows IS 'Charges of the slice from then on; 0: it vanished.';
COMMENT ON COLUMN history.BilledCost IS 'Their sum.';
COMMENT ON COLUMN history.x_IsCorrection IS 'True: approved corrections of an earlier month, which stand beside what is fetched of this one; x_Landing is the restatement.';

CREATE TABLE x_history (x_Provider VARCHAR, x_Account VARCHAR, x_LedgerLine BIGINT, x_Seal VARCHAR NOT NULL);
COMMENT ON TABLE x_history IS 'Which files of data/history the table history was loaded from.';
COMMENT ON COLUMN x_history.x_Seal IS 'How many rows that gave, and a hash of them.';

-- A month as believed at an instant is, slice by slice, the last one that was decided about until then.
CREATE MACRO totals_as_of(instant) AS TABLE
SELECT
    slices.x_Provider, slices.x_Account, slices.x_BillingPeriod, slices.ServiceName, slices.x_UsageDate,
    slices.BillingCurrency, CAST(sum(slices.x_Rows) AS BIGINT) AS x_Rows, sum(slices.BilledCost) AS BilledCost,
    coalesce(min(months.x_Finality), 'provisional') AS x_Finality
FROM (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, ServiceName, x_UsageDate, BillingCurrency,
        arg_max(x_Rows, x_LedgerLine) AS x_Rows,
        arg_max(BilledCost, x_LedgerLine) AS BilledCost
    FROM history
    WHERE x_DecidedAt <= CAST(instant AS TIMESTAMP WITH TIME ZONE)
    GROUP BY x_Provider, x_Account, x_BillingPeriod, ServiceName, x_UsageDate, BillingCurrency,
        CASE WHEN x_IsCorrection THEN x_Landing END
) AS slices
LEFT JOIN (
    SELECT x_Provider, x_Account, x_BillingPeriod, arg_max(x_Decision, x_LedgerLine) AS x_Finality
    FROM fetches
    WHERE x_DecidedAt <= CAST(instant AS TIMESTAMP WITH TIME ZONE) AND x_Decision IN ('provisional', 'final')
    GROUP BY x_Provider, x_Account, x_BillingPeriod
) AS months USING (x_Provider, x_Account, x_BillingPeriod)
WHERE slices.x_Rows > 0
GROUP BY
    slices.x_Provider, slices.x_Account, slices.x_BillingPeriod, slices.ServiceName, slices.x_UsageDate,
    slices.BillingCurrency
ORDER BY ALL;
COMMENT ON MACRO TABLE totals_as_of IS 'One row: one service, day and currency of one month of one account, as believed at an instant: SELECT * FROM totals_as_of(TIMESTAMPTZ ''2026-11-03 00:00:00+00'').';

CREATE VIEW drift AS
WITH currencies AS (
    SELECT DISTINCT x_Provider, x_Account, x_BillingPeriod, unnest(json_keys(x_Totals)) AS BillingCurrency FROM fetches
),
approved AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, x_Landing, x_LedgerLine AS approval
    FROM finality_ledger WHERE x_Decision = 'approved'
),
-- Until the close each fetch is compared with the one before it, so all of them count. After it, each is compared with what was
-- closed or last approved: so those count that were approved, and the newest.
newest AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, max(x_LedgerLine) AS line, max(approval) AS approval
    FROM fetches LEFT JOIN approved USING (x_Provider, x_Account, x_BillingPeriod, x_Landing)
    WHERE x_Decision IN ('restated', 'unchanged')
    GROUP BY x_Provider, x_Account, x_BillingPeriod
),
counted AS (
    SELECT fetches.*, x_Decision IN ('restated', 'unchanged') AS late
    FROM fetches
    LEFT JOIN newest USING (x_Provider, x_Account, x_BillingPeriod)
    LEFT JOIN approved USING (x_Provider, x_Account, x_BillingPeriod, x_Landing)
    WHERE NOT late OR approved.approval IS NOT NULL
        OR x_LedgerLine = newest.line AND (newest.approval IS NULL OR newest.approval < newest.line)
),
told AS (
    SELECT
        *,
        coalesce(CAST(json_extract_string(x_Totals, '$.' || BillingCurrency) AS DECIMAL(38,18)), 0) AS cost,
        coalesce(CAST(json_extract_string(x_Change, '$.causes.' || BillingCurrency || '.came') AS DECIMAL(38,18)), 0) AS came,
        coalesce(CAST(json_extract_string(x_Change, '$.causes.' || BillingCurrency || '.vanished') AS DECIMAL(38,18)), 0) AS vanished,
        coalesce(CAST(json_extract_string(x_Change, '$.causes.' || BillingCurrency || '.quantity') AS DECIMAL(38,18)), 0) AS quantity,
        coalesce(CAST(json_extract_string(x_Change, '$.causes.' || BillingCurrency || '.price') AS DECIMAL(38,18)), 0) AS price,
        coalesce(CAST(json_extract_string(x_Change, '$.causes.' || BillingCurrency || '.amount') AS DECIMAL(38,18)), 0) AS amount
    FROM counted JOIN currencies USING (x_Provider, x_Account, x_BillingPeriod)
),
months AS (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, BillingCurrency,
        arg_min(cost, x_LedgerLine) AS first_cost,
        arg_min(cost, x_LedgerLine) FILTER (WHERE x_Decision = 'provisional') AS x_FirstProvisional,
        arg_max(cost, x_LedgerLine) FILTER (WHERE x_Decision = 'provisional') AS x_LastProvisional,
        arg_max(cost, x_LedgerLine) FILTER (WHERE x_Decision = 'final') AS x_Final,
        arg_max(cost, x_LedgerLine) FILTER (WHERE late) AS x_AfterClose,
        sum(came) AS x_Came,
        sum(vanished) AS x_Vanished,
        sum(quantity) AS x_QuantityMoved,
        sum(price) AS x_PriceMoved,
        sum(amount) AS x_AmountMoved
    FROM told
    GROUP BY x_Provider, x_Account, x_BillingPeriod, BillingCurrency
)
SELECT
    x_Provider, x_Account, x_BillingPeriod, BillingCurrency,
    x_FirstProvisional, x_LastProvisional, x_Final, x_AfterClose,
    coalesce(x_AfterClose, x_Final, x_LastProvisional) - first_cost AS x_Drift,
    x_Came, x_Vanished, x_QuantityMoved, x_PriceMoved, x_AmountMoved,
    x_Drift - x_Came - x_Vanished - x_QuantityMoved - x_PriceMoved - x_AmountMoved AS x_Unsplit
FROM months
ORDER BY ALL;
COMMENT ON VIEW drift IS 'One row: how one month of one account moved in one currency, from the first fetch to the newest, and why.';
COMMENT ON COLUMN drift.x_FirstProvisional IS 'BilledCost of the month by its first provisional fetch; null: it was final at once.';
COMMENT ON COLUMN drift.x_LastProvisional IS 'By its last provisional fetch; null: it was final at once.';
COMMENT ON COLUMN drift.x_Final IS 'As it was closed; null: it is open.';
COMMENT ON COLUMN drift.x_AfterClose IS 'What the provider stated when it was last asked after the close, or what was approved since; null: it was not asked.';
COMMENT ON COLUMN drift.x_Drift IS 'The newest of the four less the first fetch. The columns behind it add up to it.';
COMMENT ON COLUMN drift.x_Came IS 'Through charges that came.';
COMMENT ON COLUMN drift.x_Vanished IS 'Through charges that vanished.';
COMMENT ON COLUMN drift.x_QuantityMoved IS 'Through charges whose quantity moved and whose unit price did not.';
COMMENT ON COLUMN drift.x_PriceMoved IS 'Through charges whose unit price moved and whose quantity did not.';
COMMENT ON COLUMN drift.x_AmountMoved IS 'Through charges that moved in any other way.';
COMMENT ON COLUMN drift.x_Unsplit IS 'Through versions of this program that read the same bytes otherwise, or did not ask why; else 0.';

CREATE VIEW accrual_estimate AS
WITH days AS (
    SELECT
        f.x_Provider, f.x_Account, f.x_BillingPeriod, f.x_LedgerLine, f.x_Totals, b.x_Finality, b.x_Totals AS newest,
        -- 32 is the 1st of the next month, whatever the length of this one; all on the provider's clock.
        CAST(CASE WHEN f.x_FetchedAt < b.x_PeriodEnd
             THEN 1 + (epoch_us(f.x_FetchedAt) - epoch_us(b.x_PeriodStart)) // 86400000000
             ELSE 32 + (epoch_us(f.x_FetchedAt) - epoch_us(b.x_PeriodEnd)) // 86400000000 END AS INTEGER) AS x_Day
    FROM fetches AS f JOIN billing_periods AS b USING (x_Provider, x_Account, x_BillingPeriod)
    WHERE f.x_Decision IN ('provisional', 'final')
),
running AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, unnest(json_keys(newest)) AS BillingCurrency, newest, max(x_Day) AS x_Day
    FROM days WHERE x_Finality = 'provisional'
    GROUP BY x_Provider, x_Account, x_BillingPeriod, newest
),
held AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, x_Day,
        CAST(json_extract_string(newest, '$.' || BillingCurrency) AS DECIMAL(38,18)) AS BilledCost
    FROM running
),
past AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, x_Day, newest, arg_max(x_Totals, x_LedgerLine) AS x_Totals
    FROM days WHERE x_Finality = 'final'
    GROUP BY x_Provider, x_Account, x_BillingPeriod, x_Day, newest
),
shares AS (
    -- Doubles from here on: a share of the past is no money, and an estimate no better for more digits.
    SELECT held.x_Provider, held.x_Account, held.x_BillingPeriod, held.BillingCurrency,
        coalesce(CAST(json_extract_string(past.x_Totals, '$.' || held.BillingCurrency) AS DOUBLE), 0)
        / nullif(CAST(json_extract_string(past.newest, '$.' || held.BillingCurrency) AS DOUBLE), 0) AS share
    FROM held JOIN past ON past.x_Provider = held.x_Provider AND past.x_Account = held.x_Account
        AND past.x_BillingPeriod < held.x_BillingPeriod AND past.x_Day = held.x_Day
),
averages AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, avg(share) AS share, count(share) AS months
    FROM shares GROUP BY x_Provider, x_Account, x_BillingPeriod, BillingCurrency
)
SELECT
    x_Provider, x_Account, x_BillingPeriod, BillingCurrency, x_Day, BilledCost,
    CAST(coalesce(months, 0) AS INTEGER) AS x_MonthsBehindIt,
    CAST(share AS DECIMAL(9,6)) AS x_ShareShown,
    CAST(CAST(BilledCost AS DOUBLE) / nullif(share, 0) AS DECIMAL(38,2)) AS x_EstimatedFinal,
    CAST(CAST(BilledCost AS DOUBLE) / nullif(share, 0) AS DECIMAL(38,2)) - CAST(BilledCost AS DECIMAL(38,2)) AS x_EstimatedToCome
FROM held LEFT JOIN averages USING (x_Provider, x_Account, x_BillingPeriod, BillingCurrency)
ORDER BY ALL;
COMMENT ON VIEW accrual_estimate IS 'One row: what one open month of one account may still bring in one currency, by the account''s own past months. An estimate.';
COMMENT ON COLUMN accrual_estimate.x_Day IS 'Day of the month of the newest fetch, on the provider''s clock; 32 is the 1st of the next month.';
COMMENT ON COLUMN accrual_estimate.BilledCost IS 'Held so far, exactly.';
COMMENT ON COLUMN accrual_estimate.x_MonthsBehindIt IS 'How many final months of the account it rests on: those that were fetched on the same day of the month.';
COMMENT ON COLUMN accrual_estimate.x_ShareShown IS 'Which part of its final amount such a month had shown on that day, on average; null without such a month.';
COMMENT ON COLUMN accrual_estimate.x_EstimatedFinal IS 'ESTIMATE: BilledCost / x_ShareShown, to 2 places; null without such a month.';
COMMENT ON COLUMN accrual_estimate.x_EstimatedToCome IS 'ESTIMATE: what is still to come, to 2 places; null without such a month.';
