-- The real invoices, and whether the months agree with them. x_IncurredPeriod and spend: see questions.sql.

CREATE TABLE invoices (
    x_Provider       VARCHAR NOT NULL,
    x_Account        VARCHAR NOT NULL,
    x_BillingPeriod  VARCHAR NOT NULL,
    BillingAccountId VARCHAR,
    InvoiceId        VARCHAR NOT NULL,
    BillingCurrency  VARCHAR NOT NULL,
    x_InvoiceAmount  DECIMAL(38,18) NOT NULL,
    x_StatedAmount   DECIMAL(38,18),
    x_Tolerance      DECIMAL(38,18) NOT NULL,
    x_Source         VARCHAR NOT NULL
);
COMMENT ON TABLE invoices IS 'One row: one invoice, out of invoices.toml or of the provider''s own list.';
COMMENT ON COLUMN invoices.x_Provider IS 'infobip, plivo, talkdesk or ycloud.';
COMMENT ON COLUMN invoices.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN invoices.x_BillingPeriod IS 'The month that is invoiced, YYYY-MM.';
COMMENT ON COLUMN invoices.BillingAccountId IS 'The one paying account that it is about; null: all of the account''s charges.';
COMMENT ON COLUMN invoices.InvoiceId IS 'Its number.';
COMMENT ON COLUMN invoices.x_InvoiceAmount IS 'Its total, in BillingCurrency.';
COMMENT ON COLUMN invoices.x_StatedAmount IS 'The total that the provider''s list of invoices states for the number; null: it lists none.';
COMMENT ON COLUMN invoices.x_Tolerance IS 'How far from it the month may be without anybody being told.';
COMMENT ON COLUMN invoices.x_Source IS 'Where it was read: invoices.toml and the line, or <landing>/<page>#<JSON pointer> of its first line.';

CREATE TABLE invoice_lines (
    x_Provider        VARCHAR NOT NULL,
    x_Account         VARCHAR NOT NULL,
    InvoiceId         VARCHAR NOT NULL,
    BillingCurrency   VARCHAR NOT NULL,
    x_ProductId       VARCHAR,
    ChargeDescription VARCHAR,
    x_LineAmount      DECIMAL(38,18) NOT NULL,
    x_RowSource       VARCHAR NOT NULL
);
COMMENT ON TABLE invoice_lines IS 'One row: one line of an invoice in the provider''s own list (Talkdesk).';
COMMENT ON COLUMN invoice_lines.x_Provider IS 'talkdesk.';
COMMENT ON COLUMN invoice_lines.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN invoice_lines.InvoiceId IS 'The invoice''s number.';
COMMENT ON COLUMN invoice_lines.x_ProductId IS 'The product, as x_Dimensions of its charges writes it; null: the line names none.';
COMMENT ON COLUMN invoice_lines.ChargeDescription IS 'What the line is for, in the provider''s words.';
COMMENT ON COLUMN invoice_lines.x_LineAmount IS 'The line''s amount, in BillingCurrency.';
COMMENT ON COLUMN invoice_lines.x_RowSource IS 'The bytes behind the line: <landing>/<page>#<JSON pointer to it in that page>.';

CREATE TABLE invoice_parts (
    x_Provider   VARCHAR NOT NULL,
    x_Account    VARCHAR NOT NULL,
    InvoiceId    VARCHAR NOT NULL,
    x_Label      VARCHAR NOT NULL,
    x_PartAmount DECIMAL(38,18) NOT NULL
);
COMMENT ON TABLE invoice_parts IS 'One row: one part of an invoice that no charge can be for, as invoices.toml explains it: tax, advance charges, ...';
COMMENT ON COLUMN invoice_parts.x_Provider IS 'infobip, plivo, talkdesk or ycloud.';
COMMENT ON COLUMN invoice_parts.x_Account IS 'The account''s name in accounts.toml.';
COMMENT ON COLUMN invoice_parts.InvoiceId IS 'The invoice''s number.';
COMMENT ON COLUMN invoice_parts.x_Label IS 'What the part is for.';
COMMENT ON COLUMN invoice_parts.x_PartAmount IS 'How much of the invoice it is, in its currency.';

CREATE TABLE invoice_lists (
    x_Provider VARCHAR NOT NULL,
    x_Account  VARCHAR NOT NULL,
    x_AskedAt  TIMESTAMP WITH TIME ZONE NOT NULL,
    x_Outcome  VARCHAR NOT NULL,
    x_Why      VARCHAR NOT NULL,
    x_Landing  VARCHAR
);
COMMENT ON TABLE invoice_lists IS 'One row: one account whose provider has a list of invoices (Talkdesk), and what came when it was last asked for.';
COMMENT ON COLUMN invoice_lists.x_AskedAt IS 'When the list was last asked for.';
COMMENT ON COLUMN invoice_lists.x_Outcome IS 'listed: it came. not available: the account''s credentials do not reach it.';
COMMENT ON COLUMN invoice_lists.x_Why IS 'Why it is not available; empty when it came.';
COMMENT ON COLUMN invoice_lists.x_Landing IS 'The newest list: a folder below data/raw/; null: none ever came.';

CREATE VIEW reconciliation AS
WITH charged AS (
    SELECT
        x_Provider, x_Account, split_part(x_RowSource, '/', 3) AS x_BillingPeriod, BillingAccountId, BillingCurrency,
        coalesce(sum(BilledCost) FILTER (WHERE ChargeClass IS DISTINCT FROM 'Correction'), 0) AS closed,
        coalesce(sum(BilledCost) FILTER (WHERE ChargeClass = 'Correction'), 0) AS corrections
    FROM charges
    GROUP BY ALL
),
products AS (
    SELECT DISTINCT x_Provider, x_Account, unnest([
        json_extract_string(x_Dimensions, '$.product_id'), json_extract_string(x_Dimensions, '$.aggr_product_id')
    ]) AS x_ProductId
    FROM charges
),
explained AS (
    SELECT x_Provider, x_Account, InvoiceId, x_Label AS label, x_PartAmount AS amount FROM invoice_parts
    UNION ALL
    -- What a person wrote about an invoice counts instead of what its lines suggest, so that nothing is explained twice.
    SELECT l.x_Provider, l.x_Account, l.InvoiceId, 'not in the usage list: ' || coalesce(l.ChargeDescription, l.x_ProductId, 'no name'),
        l.x_LineAmount
    FROM invoice_lines AS l
    LEFT JOIN products AS p ON p.x_Provider = l.x_Provider AND p.x_Account = l.x_Account AND p.x_ProductId = l.x_ProductId
    WHERE p.x_ProductId IS NULL AND NOT EXISTS (
        SELECT 1 FROM invoice_parts AS w
        WHERE w.x_Provider = l.x_Provider AND w.x_Account = l.x_Account AND w.InvoiceId = l.InvoiceId
    )
),
parts AS (
    SELECT
        i.x_Provider, i.x_Account, i.x_BillingPeriod, i.BillingAccountId, i.BillingCurrency,
        sum(e.amount) AS amount,
        string_agg(e.label || ' ' || rtrim(rtrim(CAST(e.amount AS VARCHAR), '0'), '.'), '; ' ORDER BY e.label, e.amount) AS labels
    FROM explained AS e
    JOIN invoices AS i ON i.x_Provider = e.x_Provider AND i.x_Account = e.x_Account AND i.InvoiceId = e.InvoiceId
    GROUP BY ALL
),
billed AS (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, BillingAccountId, BillingCurrency,
        string_agg(InvoiceId, ', ' ORDER BY InvoiceId) AS ids,
        sum(x_InvoiceAmount) AS amount,
        sum(x_Tolerance) AS tolerance,
        count(*) FILTER (WHERE x_StatedAmount IS NOT NULL AND x_StatedAmount <> x_InvoiceAmount) > 0 AS stated_otherwise
    FROM invoices
    GROUP BY ALL
),
ours AS (
    SELECT b.x_Provider, b.x_Account, b.x_BillingPeriod, b.BillingAccountId, b.BillingCurrency,
        coalesce(sum(c.closed), 0) AS closed, coalesce(sum(c.corrections), 0) AS corrections
    FROM billed AS b
    LEFT JOIN charged AS c ON c.x_Provider = b.x_Provider AND c.x_Account = b.x_Account
        AND c.x_BillingPeriod = b.x_BillingPeriod AND c.BillingCurrency = b.BillingCurrency
        AND (b.BillingAccountId IS NULL OR c.BillingAccountId = b.BillingAccountId)
    GROUP BY ALL
),
compared AS (
    SELECT
        b.x_Provider, b.x_Account, b.x_BillingPeriod, b.BillingAccountId, b.BillingCurrency, b.ids, b.tolerance, b.stated_otherwise,
        p.x_Finality, b.amount AS invoice,
        CASE WHEN p.x_Finality IS NOT NULL THEN ours.closed END AS closed,
        CASE WHEN p.x_Finality IS NOT NULL THEN ours.corrections END AS corrections,
        coalesce(parts.amount, 0) AS explained, parts.labels
    FROM billed AS b
    LEFT JOIN ours ON ours.x_Provider = b.x_Provider AND ours.x_Account = b.x_Account AND ours.x_BillingPeriod = b.x_BillingPeriod
        AND ours.BillingCurrency = b.BillingCurrency AND ours.BillingAccountId IS NOT DISTINCT FROM b.BillingAccountId
    LEFT JOIN parts ON parts.x_Provider = b.x_Provider AND parts.x_Account = b.x_Account
        AND parts.x_BillingPeriod = b.x_BillingPeriod AND parts.BillingCurrency = b.BillingCurrency
        AND parts.BillingAccountId IS NOT DISTINCT FROM b.BillingAccountId
    LEFT JOIN billing_periods AS p ON p.x_Provider = b.x_Provider AND p.x_Account = b.x_Account
        AND p.x_BillingPeriod = b.x_BillingPeriod
    UNION ALL
    SELECT c.x_Provider, c.x_Account, c.x_BillingPeriod, c.BillingAccountId, c.BillingCurrency, NULL, NULL, FALSE,
        p.x_Finality, NULL, c.closed, c.corrections, 0, NULL
    FROM charged AS c
    LEFT JOIN billing_periods AS p ON p.x_Provider = c.x_Provider AND p.x_Account = c.x_Account
        AND p.x_BillingPeriod = c.x_BillingPeriod
    WHERE NOT EXISTS (
        SELECT 1 FROM billed AS b
        WHERE b.x_Provider = c.x_Provider AND b.x_Account = c.x_Account AND b.x_BillingPeriod = c.x_BillingPeriod
            AND b.BillingCurrency = c.BillingCurrency AND (b.BillingAccountId IS NULL OR b.BillingAccountId = c.BillingAccountId)
    )
)
SELECT
    x_Provider, x_Account, x_BillingPeriod, BillingAccountId, BillingCurrency,
    closed + corrections AS x_Ours,
    invoice AS x_Invoice,
    invoice - closed - corrections AS x_Difference,
    explained AS x_Explained,
    invoice - closed - corrections - explained AS x_Unexplained,
    tolerance AS x_Tolerance,
    CASE
        WHEN invoice IS NULL THEN 'no invoice'
        WHEN x_Finality IS NULL THEN 'never fetched'
        WHEN x_Finality <> 'final' THEN 'not final yet'
        WHEN stated_otherwise THEN 'the provider states another invoice'
        WHEN abs(invoice - closed - corrections - explained) <= tolerance THEN 'agrees'
        WHEN abs(invoice - closed - explained) <= tolerance THEN 'agrees as it was closed'
        ELSE 'disagrees'
    END AS x_Verdict,
    labels AS x_ExplainedParts,
    corrections AS x_Corrections,
    ids AS x_Invoices,
    x_Finality
FROM compared
ORDER BY ALL;
COMMENT ON VIEW reconciliation IS 'One row: what we hold of one month of one account (or of one paying account of it) in one currency, against its invoices.';
COMMENT ON COLUMN reconciliation.x_BillingPeriod IS 'The month that is invoiced. Corrections are counted where they were incurred, not where they are booked.';
COMMENT ON COLUMN reconciliation.BillingAccountId IS 'The paying account; null: the invoice names none, so all of them.';
COMMENT ON COLUMN reconciliation.x_Ours IS 'BilledCost of the month, money paid in and approved corrections included; null: never fetched.';
COMMENT ON COLUMN reconciliation.x_Invoice IS 'The sum of its invoices; null: none is known.';
COMMENT ON COLUMN reconciliation.x_Difference IS 'x_Invoice - x_Ours = x_Explained + x_Unexplained.';
COMMENT ON COLUMN reconciliation.x_Explained IS 'The parts that no charge can be for: as invoices.toml says; else lines of products that no charge ever had; 0: none.';
COMMENT ON COLUMN reconciliation.x_Unexplained IS 'What is left of the difference.';
COMMENT ON COLUMN reconciliation.x_Tolerance IS 'How far from 0 x_Unexplained may be; of several invoices the sum.';
COMMENT ON COLUMN reconciliation.x_Verdict IS 'agrees: x_Unexplained is within x_Tolerance. agrees as it was closed: without the corrections approved since. disagrees. the provider states another invoice: its list has another total for the number. not final yet, never fetched, no invoice: nothing to judge.';
COMMENT ON COLUMN reconciliation.x_ExplainedParts IS 'The same part by part, in words; null: none.';
COMMENT ON COLUMN reconciliation.x_Corrections IS 'The part of x_Ours that was approved after the month was closed; 0: none.';
COMMENT ON COLUMN reconciliation.x_Invoices IS 'Their numbers; null: none.';
COMMENT ON COLUMN reconciliation.x_Finality IS 'provisional or final: our month; null: never fetched.';
