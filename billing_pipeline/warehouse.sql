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
    x_InvoiceIssuerName VARCHAR NOT NULL
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
COMMENT ON COLUMN billing_periods.x_Restated IS 'True: the provider now states other numbers for this final month; they are held, not shown.';
COMMENT ON COLUMN billing_periods.x_LeftOut IS 'JSON: rows and totals that came with the fetch but belong to another month.';
COMMENT ON COLUMN billing_periods.x_Notes IS 'JSON list: what a person should hear of, such as values the provider''s page does not document.';
COMMENT ON COLUMN billing_periods.x_Landing IS 'The landing in data/raw/ that the charges were made from.';
COMMENT ON COLUMN billing_periods.x_PeriodStart IS 'First instant of the month on the provider''s clock; inclusive.';
COMMENT ON COLUMN billing_periods.x_PeriodEnd IS 'First instant after the month; exclusive.';
COMMENT ON COLUMN billing_periods.x_InvoiceIssuerName IS 'Who sends the invoice.';

CREATE TABLE finality_ledger (
    x_DecidedAt     TIMESTAMP WITH TIME ZONE NOT NULL,
    x_Provider      VARCHAR NOT NULL,
    x_Account       VARCHAR NOT NULL,
    x_BillingPeriod VARCHAR NOT NULL,
    x_Decision      VARCHAR NOT NULL,
    x_Rule          VARCHAR NOT NULL,
    x_Evidence      JSON NOT NULL,
    x_Landing       VARCHAR NOT NULL
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
    x_Change        JSON NOT NULL
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
COMMENT ON COLUMN fetches.x_Change IS 'JSON: rows and totals against what the month held before; empty for the first fetch.';

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

CREATE SCHEMA focus;

CREATE VIEW focus.cost_and_usage AS
SELECT
    CAST(NULL AS JSON) AS AllocatedMethodDetails,
    CAST(NULL AS VARCHAR) AS AllocatedMethodId,
    CAST(NULL AS VARCHAR) AS AllocatedResourceId,
    CAST(NULL AS VARCHAR) AS AllocatedResourceName,
    CAST(NULL AS JSON) AS AllocatedTags,
    CAST(NULL AS VARCHAR) AS AvailabilityZone,
    BilledCost,
    BillingAccountId,
    BillingAccountName,
    CAST(NULL AS VARCHAR) AS BillingAccountType,
    BillingCurrency,
    BillingPeriodEnd,
    BillingPeriodStart,
    CAST(NULL AS VARCHAR) AS CapacityReservationId,
    CAST(NULL AS VARCHAR) AS CapacityReservationStatus,
    ChargeCategory,
    ChargeClass,
    ChargeDescription,
    ChargeFrequency,
    ChargePeriodEnd,
    ChargePeriodStart,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountCategory,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountId,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountName,
    CAST(NULL AS DECIMAL(38,18)) AS CommitmentDiscountQuantity,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountStatus,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountType,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountUnit,
    CAST(NULL AS JSON) AS CommitmentProgramEligibilityDetails,
    ConsumedQuantity,
    ConsumedUnit,
    CAST(NULL AS JSON) AS ContractApplied,
    ContractedCost,
    CAST(NULL AS DECIMAL(38,18)) AS ContractedUnitPrice,
    EffectiveCost,
    HostProviderName,
    InvoiceDetailId,
    InvoiceId,
    InvoiceIssuerName,
    ListCost,
    CAST(NULL AS DECIMAL(38,18)) AS ListUnitPrice,
    CAST(NULL AS VARCHAR) AS PricingCategory,
    CAST(NULL AS VARCHAR) AS PricingCurrency,
    CAST(NULL AS DECIMAL(38,18)) AS PricingCurrencyContractedUnitPrice,
    CAST(NULL AS DECIMAL(38,18)) AS PricingCurrencyEffectiveCost,
    CAST(NULL AS DECIMAL(38,18)) AS PricingCurrencyListUnitPrice,
    PricingQuantity,
    PricingUnit,
    CAST(NULL AS VARCHAR) AS RegionId,
    CAST(NULL AS VARCHAR) AS RegionName,
    CAST(NULL AS VARCHAR) AS ResourceId,
    CAST(NULL AS VARCHAR) AS ResourceName,
    CAST(NULL AS VARCHAR) AS ResourceType,
    ServiceCategory,
    ServiceName,
    ServiceProviderName,
    ServiceSubcategory,
    CAST(NULL AS VARCHAR) AS SkuId,
    CAST(NULL AS VARCHAR) AS SkuMeter,
    CAST(NULL AS JSON) AS SkuPriceDetails,
    CAST(NULL AS VARCHAR) AS SkuPriceId,
    SubAccountId,
    SubAccountName,
    CAST(NULL AS VARCHAR) AS SubAccountType,
    CAST(NULL AS JSON) AS Tags,
    * LIKE 'x\_%' ESCAPE '\'
FROM charges;
COMMENT ON VIEW focus.cost_and_usage IS 'FOCUS 1.4 Cost and Usage at full width: every column of the specification, null where no provider states it, then ours.';

CREATE VIEW focus.billing_period AS
SELECT
    min(first.x_FetchedAt) AS BillingPeriodCreated,
    x_PeriodEnd AS BillingPeriodEnd,
    max(coalesce(x_FinalizedAt, billing_periods.x_FetchedAt)) AS BillingPeriodLastUpdated,
    x_PeriodStart AS BillingPeriodStart,
    CASE WHEN bool_and(x_Finality = 'final') THEN 'Closed' ELSE 'Open' END AS BillingPeriodStatus,
    x_InvoiceIssuerName AS InvoiceIssuerName
FROM billing_periods
JOIN (SELECT x_Provider, x_Account, x_BillingPeriod, min(x_FetchedAt) AS x_FetchedAt FROM fetches GROUP BY ALL) AS first
    USING (x_Provider, x_Account, x_BillingPeriod)
GROUP BY x_PeriodStart, x_PeriodEnd, x_InvoiceIssuerName;
COMMENT ON VIEW focus.billing_period IS 'FOCUS 1.4 Billing Period: one row per month and invoice issuer, Closed when all of the issuer''s accounts are final.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodCreated IS 'When the month was fetched for the first time.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodEnd IS 'First instant after the month on the provider''s clock; exclusive.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodLastUpdated IS 'When it was last replaced, or closed.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodStart IS 'First instant of the month on the provider''s clock; inclusive.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodStatus IS 'Open: charges may still change. Closed: they will not.';
COMMENT ON COLUMN focus.billing_period.InvoiceIssuerName IS 'Who sends the invoice.';
