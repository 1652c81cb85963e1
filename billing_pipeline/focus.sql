-- FOCUS 1.4 (https://focus.finops.org/focus-specification/v1-4/): the same charges and months for tools and published queries.
-- A column that no provider's API states is null, with its reason as comment; nothing is made up to fill it.

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
    coalesce(SubAccountName, SubAccountId) AS SubAccountName,
    CAST(NULL AS VARCHAR) AS SubAccountType,
    CAST(NULL AS JSON) AS Tags,
    x_RowSource AS x_ChargeKey,
    COLUMNS('^x_')
FROM charges;
COMMENT ON VIEW focus.cost_and_usage IS 'FOCUS 1.4 Cost and Usage at full width: every column of the specification, null where no provider states it, then ours.';
COMMENT ON COLUMN focus.cost_and_usage.AllocatedMethodDetails IS 'Always null. No provider splits the cost of something shared.';
COMMENT ON COLUMN focus.cost_and_usage.AllocatedMethodId IS 'Always null. No provider splits the cost of something shared.';
COMMENT ON COLUMN focus.cost_and_usage.AllocatedResourceId IS 'Always null. No provider splits the cost of something shared.';
COMMENT ON COLUMN focus.cost_and_usage.AllocatedResourceName IS 'Always null. No provider splits the cost of something shared.';
COMMENT ON COLUMN focus.cost_and_usage.AllocatedTags IS 'Always null. No provider splits the cost of something shared.';
COMMENT ON COLUMN focus.cost_and_usage.AvailabilityZone IS 'Always null. No provider says where its service runs. Where the traffic goes is x_DestinationCountry, which is no region of FOCUS.';
COMMENT ON COLUMN focus.cost_and_usage.BillingAccountType IS 'Always null. No provider has accounts of more than one type.';
COMMENT ON COLUMN focus.cost_and_usage.CapacityReservationId IS 'Always null. No provider sells a reservation of capacity.';
COMMENT ON COLUMN focus.cost_and_usage.CapacityReservationStatus IS 'Always null. No provider sells a reservation of capacity.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountCategory IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountId IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountName IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountQuantity IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountStatus IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountType IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentDiscountUnit IS 'Always null. No provider says which discount for a commitment a charge had.';
COMMENT ON COLUMN focus.cost_and_usage.CommitmentProgramEligibilityDetails IS 'Always null. No provider has a programme of commitments.';
COMMENT ON COLUMN focus.cost_and_usage.ContractApplied IS 'Always null. No provider says which contract a charge was set against.';
COMMENT ON COLUMN focus.cost_and_usage.ContractedUnitPrice IS 'Always null. No provider states a price that gives the cost when multiplied by the quantity, as FOCUS wants it; what they state is x_UnitPrice.';
COMMENT ON COLUMN focus.cost_and_usage.ListUnitPrice IS 'Always null. No provider states a price that gives the cost when multiplied by the quantity, as FOCUS wants it; what they state is x_UnitPrice.';
COMMENT ON COLUMN focus.cost_and_usage.PricingCategory IS 'Always null. No provider tells categories of prices apart.';
COMMENT ON COLUMN focus.cost_and_usage.PricingCurrency IS 'Always null. No provider prices in another currency than the one it bills in.';
COMMENT ON COLUMN focus.cost_and_usage.PricingCurrencyContractedUnitPrice IS 'Always null. No provider prices in another currency than the one it bills in.';
COMMENT ON COLUMN focus.cost_and_usage.PricingCurrencyEffectiveCost IS 'Always null. No provider prices in another currency than the one it bills in.';
COMMENT ON COLUMN focus.cost_and_usage.PricingCurrencyListUnitPrice IS 'Always null. No provider prices in another currency than the one it bills in.';
COMMENT ON COLUMN focus.cost_and_usage.RegionId IS 'Always null. No provider says where its service runs. Where the traffic goes is x_DestinationCountry, which is no region of FOCUS.';
COMMENT ON COLUMN focus.cost_and_usage.RegionName IS 'Always null. No provider says where its service runs. Where the traffic goes is x_DestinationCountry, which is no region of FOCUS.';
COMMENT ON COLUMN focus.cost_and_usage.ResourceId IS 'Always null. No provider names the resource behind a charge.';
COMMENT ON COLUMN focus.cost_and_usage.ResourceName IS 'Always null. No provider names the resource behind a charge.';
COMMENT ON COLUMN focus.cost_and_usage.ResourceType IS 'Always null. No provider names the resource behind a charge.';
COMMENT ON COLUMN focus.cost_and_usage.SkuId IS 'Always null. No provider publishes price lists with ids. With an id FOCUS would demand prices that no provider states.';
COMMENT ON COLUMN focus.cost_and_usage.SkuMeter IS 'Always null. No provider publishes price lists with ids. With an id FOCUS would demand prices that no provider states.';
COMMENT ON COLUMN focus.cost_and_usage.SkuPriceDetails IS 'Always null. No provider publishes price lists with ids. With an id FOCUS would demand prices that no provider states.';
COMMENT ON COLUMN focus.cost_and_usage.SkuPriceId IS 'Always null. No provider publishes price lists with ids. With an id FOCUS would demand prices that no provider states.';
COMMENT ON COLUMN focus.cost_and_usage.SubAccountType IS 'Always null. No provider has accounts of more than one type.';
COMMENT ON COLUMN focus.cost_and_usage.Tags IS 'Always null. No provider lets charges be tagged. Its own fields are in x_Dimensions.';
COMMENT ON COLUMN focus.cost_and_usage.SubAccountName IS 'Its name; where the provider states none its id again, for FOCUS allows no sub-account without a name. charges has null there.';
COMMENT ON COLUMN focus.cost_and_usage.x_ChargeKey IS 'x_RowSource under the name that x_CorrectionOf of corrections is looked up by. Unique.';

CREATE VIEW focus_data_table AS SELECT * FROM focus.cost_and_usage;
COMMENT ON VIEW focus_data_table IS 'focus.cost_and_usage under the name that the published FOCUS queries use.';

CREATE VIEW focus.billing_period AS
WITH first AS (
    SELECT x_Provider, x_Account, x_BillingPeriod, min(x_FetchedAt) AS created FROM fetches GROUP BY ALL
),
shown AS ( -- the latest instant, not the last decision: FOCUS lets no delivery be older than the one before, and clocks are put back
    SELECT x_Provider, x_Account, x_BillingPeriod, max(x_DecidedAt) AS updated
    FROM finality_ledger WHERE x_Decision IN ('provisional', 'final') GROUP BY ALL
),
booked AS (
    SELECT x_Provider, x_Account, x_Evidence->>'booked_in' AS x_BillingPeriod, min(x_DecidedAt) AS created, max(x_DecidedAt) AS updated
    FROM finality_ledger WHERE x_Decision = 'approved' GROUP BY ALL
),
months AS (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, x_PeriodStart, x_PeriodEnd, x_InvoiceIssuerName, x_Finality, created,
        greatest(x_FetchedAt, x_FinalizedAt, shown.updated) AS updated
    FROM billing_periods
    JOIN first USING (x_Provider, x_Account, x_BillingPeriod)
    JOIN shown USING (x_Provider, x_Account, x_BillingPeriod)
    UNION ALL
    SELECT DISTINCT
        x_Provider, x_Account, x_BillingPeriod, BillingPeriodStart, BillingPeriodEnd, InvoiceIssuerName, x_Finality, created,
        updated
    FROM charges JOIN booked USING (x_Provider, x_Account, x_BillingPeriod)
    WHERE ChargeClass = 'Correction'
),
awaited AS (
    SELECT DISTINCT x_Provider, x_BillingPeriod
    FROM x_expected ANTI JOIN months USING (x_Provider, x_Account, x_BillingPeriod)
)
SELECT
    min(created) AS BillingPeriodCreated,
    x_PeriodEnd AS BillingPeriodEnd,
    max(updated) AS BillingPeriodLastUpdated,
    x_PeriodStart AS BillingPeriodStart,
    CASE WHEN bool_and(x_Finality = 'final' AND awaited.x_Provider IS NULL) THEN 'Closed' ELSE 'Open' END AS BillingPeriodStatus,
    x_InvoiceIssuerName AS InvoiceIssuerName,
    x_BillingPeriod
FROM months LEFT JOIN awaited USING (x_Provider, x_BillingPeriod)
GROUP BY x_BillingPeriod, x_PeriodStart, x_PeriodEnd, x_InvoiceIssuerName;
COMMENT ON VIEW focus.billing_period IS 'FOCUS 1.4 Billing Period: one row per month and invoice issuer, Closed when the month is held and final of every account of the issuer.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodCreated IS 'When something was known of the month for the first time: a fetch of it, or a correction booked in it.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodEnd IS 'First instant after the month on the provider''s clock; exclusive.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodLastUpdated IS 'When it was last fetched, closed, or had a correction of an earlier month booked in it.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodStart IS 'First instant of the month on the provider''s clock; inclusive.';
COMMENT ON COLUMN focus.billing_period.BillingPeriodStatus IS 'Open: charges may still change. Closed: they will not.';
COMMENT ON COLUMN focus.billing_period.InvoiceIssuerName IS 'Who sends the invoice.';
