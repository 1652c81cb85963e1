-- Views for the questions that people ask of the numbers. Two months are told apart: x_BillingPeriod is where a charge is
-- booked, as invoices and finality go by it; x_IncurredPeriod is what it was charged for, as comparisons go by it. They differ
-- for approved corrections alone. Money is never divided as a double: quotients are made of whole numbers.

CREATE VIEW spend AS
SELECT *, split_part(x_RowSource, '/', 3) AS x_IncurredPeriod
FROM consumption;
COMMENT ON VIEW spend IS 'One row: one charge for something used or bought, with the month it was incurred in. Money paid in (RECHARGE, CREDIT_COMMIT) is left out.';
COMMENT ON COLUMN spend.x_IncurredPeriod IS 'The month that was charged for, YYYY-MM. x_BillingPeriod of all charges but approved corrections, which are booked later.';

CREATE VIEW cost_by_service AS
SELECT
    x_BillingPeriod, x_Provider, ServiceName, BillingCurrency,
    sum(BilledCost) AS BilledCost,
    sum(EffectiveCost) AS EffectiveCost,
    coalesce(sum(BilledCost) FILTER (WHERE x_IsPrepayment), 0) AS x_PaidIn,
    coalesce(sum(BilledCost) FILTER (WHERE ChargeClass = 'Correction'), 0) AS x_Corrections,
    coalesce(sum(BilledCost) FILTER (WHERE x_Finality = 'provisional'), 0) AS x_Provisional,
    count(*) AS x_Rows
FROM charges
GROUP BY ALL
ORDER BY ALL;
COMMENT ON VIEW cost_by_service IS 'One row: one service of one provider, all its accounts, in one month and one currency. By the month in which it is booked.';
COMMENT ON COLUMN cost_by_service.BilledCost IS 'Everything billed: EffectiveCost + x_PaidIn.';
COMMENT ON COLUMN cost_by_service.EffectiveCost IS 'Used or bought: BilledCost without money paid in to cover later usage.';
COMMENT ON COLUMN cost_by_service.x_PaidIn IS 'The part of BilledCost that was paid in to cover later usage; 0: none.';
COMMENT ON COLUMN cost_by_service.x_Corrections IS 'The part of BilledCost that corrects earlier months; 0: none.';
COMMENT ON COLUMN cost_by_service.x_Provisional IS 'The part of BilledCost that may still change; 0: all of it is final.';
COMMENT ON COLUMN cost_by_service.x_Rows IS 'How many charges.';

CREATE VIEW cost_by_country AS
SELECT
    x_BillingPeriod, x_Provider, x_DestinationCountry, BillingCurrency,
    sum(BilledCost) AS BilledCost,
    sum(EffectiveCost) AS EffectiveCost,
    coalesce(sum(BilledCost) FILTER (WHERE x_IsPrepayment), 0) AS x_PaidIn,
    coalesce(sum(BilledCost) FILTER (WHERE ChargeClass = 'Correction'), 0) AS x_Corrections,
    coalesce(sum(BilledCost) FILTER (WHERE x_Finality = 'provisional'), 0) AS x_Provisional,
    count(*) AS x_Rows
FROM charges
GROUP BY ALL
ORDER BY ALL;
COMMENT ON VIEW cost_by_country IS 'One row: one destination of one provider in one month and one currency. By the month in which it is booked.';
COMMENT ON COLUMN cost_by_country.x_DestinationCountry IS 'Where the traffic went, as the provider writes it; null: it went nowhere (numbers, fees, money paid in) or no country is stated (all of Talkdesk).';
COMMENT ON COLUMN cost_by_country.BilledCost IS 'Everything billed: EffectiveCost + x_PaidIn.';
COMMENT ON COLUMN cost_by_country.EffectiveCost IS 'Used or bought: BilledCost without money paid in to cover later usage.';
COMMENT ON COLUMN cost_by_country.x_PaidIn IS 'The part of BilledCost that was paid in to cover later usage; 0: none.';
COMMENT ON COLUMN cost_by_country.x_Corrections IS 'The part of BilledCost that corrects earlier months; 0: none.';
COMMENT ON COLUMN cost_by_country.x_Provisional IS 'The part of BilledCost that may still change; 0: all of it is final.';
COMMENT ON COLUMN cost_by_country.x_Rows IS 'How many charges.';

CREATE VIEW cost_by_account AS
SELECT
    x_BillingPeriod, x_Provider, x_Account, BillingAccountId, SubAccountId, BillingCurrency,
    max(BillingAccountName) AS BillingAccountName,
    max(SubAccountName) AS SubAccountName,
    sum(BilledCost) AS BilledCost,
    sum(EffectiveCost) AS EffectiveCost,
    coalesce(sum(BilledCost) FILTER (WHERE x_IsPrepayment), 0) AS x_PaidIn,
    coalesce(sum(BilledCost) FILTER (WHERE ChargeClass = 'Correction'), 0) AS x_Corrections,
    coalesce(sum(BilledCost) FILTER (WHERE x_Finality = 'provisional'), 0) AS x_Provisional,
    count(*) AS x_Rows
FROM charges
GROUP BY x_BillingPeriod, x_Provider, x_Account, BillingAccountId, SubAccountId, BillingCurrency
ORDER BY ALL;
COMMENT ON VIEW cost_by_account IS 'One row: one paying account or sub-account in one month and one currency. By the month in which it is booked.';
COMMENT ON COLUMN cost_by_account.BillingAccountName IS 'Its name, where the provider states one; of several the last in the alphabet.';
COMMENT ON COLUMN cost_by_account.SubAccountId IS 'The account below the paying one; null: the paying account itself.';
COMMENT ON COLUMN cost_by_account.SubAccountName IS 'Its name, where the provider states one; of several the last in the alphabet.';
COMMENT ON COLUMN cost_by_account.BilledCost IS 'Everything billed: EffectiveCost + x_PaidIn.';
COMMENT ON COLUMN cost_by_account.EffectiveCost IS 'Used or bought: BilledCost without money paid in to cover later usage.';
COMMENT ON COLUMN cost_by_account.x_PaidIn IS 'The part of BilledCost that was paid in to cover later usage; 0: none.';
COMMENT ON COLUMN cost_by_account.x_Corrections IS 'The part of BilledCost that corrects earlier months; 0: none.';
COMMENT ON COLUMN cost_by_account.x_Provisional IS 'The part of BilledCost that may still change; 0: all of it is final.';
COMMENT ON COLUMN cost_by_account.x_Rows IS 'How many charges.';

CREATE VIEW surcharges AS
SELECT
    x_BillingPeriod, x_Provider, x_Account, ServiceName, x_DestinationCountry, BillingCurrency,
    sum(BilledCost) AS BilledCost,
    coalesce(sum(x_Surcharge), 0) AS x_Surcharge,
    coalesce(sum(BilledCost) FILTER (WHERE ServiceName LIKE '%OPERATOR\_FEE' ESCAPE '\'), 0) AS x_OperatorFees
FROM charges
GROUP BY x_BillingPeriod, x_Provider, x_Account, ServiceName, x_DestinationCountry, BillingCurrency
HAVING count(*) FILTER (WHERE x_Surcharge <> 0 OR ServiceName LIKE '%OPERATOR\_FEE' ESCAPE '\') > 0
ORDER BY ALL;
COMMENT ON VIEW surcharges IS 'One row: one service to one destination that bears carrier surcharges or is an operator fee. By the month in which it is booked.';
COMMENT ON COLUMN surcharges.BilledCost IS 'All of the service to that destination, surcharges and fees included.';
COMMENT ON COLUMN surcharges.x_Surcharge IS 'The part of BilledCost that is a carrier surcharge (Plivo states it). Inside BilledCost, never to be added.';
COMMENT ON COLUMN surcharges.x_OperatorFees IS 'BilledCost of services that are operator fees (Infobip SMS_OPERATOR_FEE, MMS_OPERATOR_FEE): rows of their own.';

CREATE VIEW provisional_part AS
WITH absent AS (
    SELECT x_BillingPeriod, string_agg(x_Provider || '/' || x_Account, ', ' ORDER BY x_Provider, x_Account) AS accounts
    FROM (
        SELECT DISTINCT x_Provider, x_Account, x_BillingPeriod FROM x_expected
        EXCEPT SELECT x_Provider, x_Account, x_BillingPeriod FROM billing_periods
    ) AS missing
    GROUP BY x_BillingPeriod
)
SELECT
    charges.x_BillingPeriod, BillingCurrency,
    sum(BilledCost) AS BilledCost,
    coalesce(sum(BilledCost) FILTER (WHERE x_Finality = 'final'), 0) AS x_Final,
    coalesce(sum(BilledCost) FILTER (WHERE x_Finality = 'provisional'), 0) AS x_Provisional,
    string_agg(DISTINCT x_Provider || '/' || x_Account, ', ' ORDER BY x_Provider || '/' || x_Account)
        FILTER (WHERE x_Finality = 'provisional') AS x_ProvisionalAccounts,
    min(absent.accounts) AS x_NeverFetched
FROM charges
LEFT JOIN absent ON absent.x_BillingPeriod = charges.x_BillingPeriod
GROUP BY charges.x_BillingPeriod, BillingCurrency
ORDER BY ALL;
COMMENT ON VIEW provisional_part IS 'One row: one month in one currency, all accounts, and which part of it may still change. By the month in which it is booked.';
COMMENT ON COLUMN provisional_part.BilledCost IS 'Everything billed: x_Final + x_Provisional.';
COMMENT ON COLUMN provisional_part.x_Final IS 'The part in final months of accounts: it never changes.';
COMMENT ON COLUMN provisional_part.x_Provisional IS 'The part that may still change.';
COMMENT ON COLUMN provisional_part.x_ProvisionalAccounts IS 'The accounts whose charges may still change; null: none.';
COMMENT ON COLUMN provisional_part.x_NeverFetched IS 'Accounts in accounts.toml of which the month was never fetched, so that nothing of theirs is in the total; null: none.';

CREATE VIEW complete_through AS
WITH days AS (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, x_DayEnd, x_CoveredAt, x_IsCovered, x_IsOverdue, x_PublishedAt,
        coalesce(x_Day, CAST(x_BillingPeriod || '-01' AS DATE)) AS first_day,
        coalesce(x_Day, CAST(CAST(x_BillingPeriod || '-01' AS DATE) + INTERVAL 1 MONTH - INTERVAL 1 DAY AS DATE)) AS last_day
    FROM x_expected
    WHERE x_IsDaily = (x_Day IS NOT NULL)
),
ends AS (
    SELECT x_Provider, x_Account, max(last_day) FILTER (WHERE x_IsCovered) AS last_day
    FROM days GROUP BY x_Provider, x_Account
),
holes AS (
    SELECT x_Provider, x_Account, max(days.last_day) AS last_day
    FROM days JOIN ends USING (x_Provider, x_Account)
    WHERE NOT x_IsCovered AND days.last_day < ends.last_day
    GROUP BY x_Provider, x_Account
),
settled AS (
    SELECT p.x_Provider, p.x_Account, max(p.x_BillingPeriod) AS x_FinalThrough
    FROM billing_periods AS p
    WHERE p.x_Finality = 'final'
    GROUP BY p.x_Provider, p.x_Account
)
SELECT
    days.x_Provider, days.x_Account,
    max(ends.last_day) AS x_CompleteThrough,
    min(days.first_day) FILTER (WHERE x_IsCovered AND (holes.last_day IS NULL OR days.last_day > holes.last_day)) AS x_CompleteSince,
    count(*) FILTER (WHERE x_IsOverdue AND NOT x_IsCovered) AS x_Missing,
    max(settled.x_FinalThrough) AS x_NewestFinal,
    max(x_CoveredAt) AS x_FetchedAt,
    max(x_PublishedAt) AS x_PublishedAt
FROM days
LEFT JOIN ends USING (x_Provider, x_Account)
LEFT JOIN holes USING (x_Provider, x_Account)
LEFT JOIN settled USING (x_Provider, x_Account)
GROUP BY days.x_Provider, days.x_Account
ORDER BY ALL;
COMMENT ON VIEW complete_through IS 'One row: one account, and through which day its charges are all there. What is charged by the month (numbers, rentals) comes when the month is over.';
COMMENT ON COLUMN complete_through.x_CompleteThrough IS 'The newest day, on the provider''s clock, that a complete fetch covers which began after the day had ended; of a provider that knows months only the last day of a month. Null: none.';
COMMENT ON COLUMN complete_through.x_CompleteSince IS 'The first day of the unbroken row of such days that ends there; null: none.';
COMMENT ON COLUMN complete_through.x_Missing IS 'Days (months, of a provider that knows months only) from history_from on that should be covered and are not, as of x_PublishedAt.';
COMMENT ON COLUMN complete_through.x_NewestFinal IS 'The newest month that is final, YYYY-MM; null: none.';
COMMENT ON COLUMN complete_through.x_FetchedAt IS 'When the newest complete fetch started that covers anything.';

CREATE VIEW month_over_month AS
WITH cost AS (
    SELECT x_Provider, x_Account, x_IncurredPeriod, ServiceName, BillingCurrency, sum(EffectiveCost) AS cost
    FROM spend
    GROUP BY ALL
),
held AS (
    SELECT
        x_Provider, x_Account, x_BillingPeriod, x_Finality,
        strftime(CAST(x_BillingPeriod || '-01' AS DATE) - INTERVAL 1 MONTH, '%Y-%m') AS before
    FROM billing_periods
),
series AS (
    SELECT held.x_Provider, held.x_Account, held.x_BillingPeriod, held.x_Finality, held.before, ServiceName, BillingCurrency
    FROM held
    JOIN cost ON cost.x_Provider = held.x_Provider AND cost.x_Account = held.x_Account
        AND cost.x_IncurredPeriod IN (held.x_BillingPeriod, held.before)
    GROUP BY ALL
)
SELECT
    series.x_BillingPeriod AS x_IncurredPeriod, series.x_Provider, series.x_Account, series.ServiceName, series.BillingCurrency,
    coalesce(this.cost, 0) AS EffectiveCost,
    CASE WHEN earlier.x_Finality IS NOT NULL THEN coalesce(last.cost, 0) END AS x_CostBefore,
    CASE WHEN earlier.x_Finality IS NOT NULL THEN coalesce(this.cost, 0) - coalesce(last.cost, 0) END AS x_Change,
    -- A percentage is no money: a double on the way is good enough for its one decimal.
    CASE WHEN earlier.x_Finality IS NOT NULL AND last.cost <> 0 THEN
        CAST(100 * CAST(coalesce(this.cost, 0) - last.cost AS DOUBLE) / abs(CAST(last.cost AS DOUBLE)) AS DECIMAL(38,1))
    END AS x_ChangePercent,
    series.x_Finality, earlier.x_Finality AS x_FinalityBefore
FROM series
LEFT JOIN cost AS this ON this.x_Provider = series.x_Provider AND this.x_Account = series.x_Account
    AND this.x_IncurredPeriod = series.x_BillingPeriod AND this.ServiceName = series.ServiceName
    AND this.BillingCurrency = series.BillingCurrency
LEFT JOIN cost AS last ON last.x_Provider = series.x_Provider AND last.x_Account = series.x_Account
    AND last.x_IncurredPeriod = series.before AND last.ServiceName = series.ServiceName
    AND last.BillingCurrency = series.BillingCurrency
LEFT JOIN held AS earlier ON earlier.x_Provider = series.x_Provider AND earlier.x_Account = series.x_Account
    AND earlier.x_BillingPeriod = series.before
ORDER BY ALL;
COMMENT ON VIEW month_over_month IS 'One row: one service of one account in one currency, in one month and in the month before. By the month in which it was incurred, corrections included, money paid in left out.';
COMMENT ON COLUMN month_over_month.x_IncurredPeriod IS 'The month, YYYY-MM, on the provider''s clock.';
COMMENT ON COLUMN month_over_month.EffectiveCost IS 'What was used or bought in it; 0: nothing. Of a running month only what was so far.';
COMMENT ON COLUMN month_over_month.x_CostBefore IS 'The same of the month before; 0: nothing; null: that month was never fetched.';
COMMENT ON COLUMN month_over_month.x_Change IS 'EffectiveCost - x_CostBefore; null: the month before was never fetched.';
COMMENT ON COLUMN month_over_month.x_ChangePercent IS 'The same in percent of the size of x_CostBefore, to one decimal; null: there was nothing before.';
COMMENT ON COLUMN month_over_month.x_FinalityBefore IS 'provisional or final: the month before; null: it was never fetched.';

CREATE VIEW movers AS
WITH cost AS (
    SELECT
        x_Provider, x_Account, x_IncurredPeriod, ServiceName, x_Type, x_Direction, x_DestinationCountry, ChargeDescription,
        PricingUnit, BillingCurrency,
        sum(EffectiveCost) AS cost,
        -- A slice has a quantity when all of its charges have one.
        CASE WHEN count(PricingQuantity) = count(*) THEN sum(PricingQuantity) END AS quantity
    FROM spend
    GROUP BY ALL
),
months AS (
    SELECT this.x_Provider, this.x_Account, this.x_BillingPeriod, last.x_BillingPeriod AS before, this.x_Finality
    FROM billing_periods AS this
    JOIN billing_periods AS last ON last.x_Provider = this.x_Provider AND last.x_Account = this.x_Account
        AND last.x_BillingPeriod = strftime(CAST(this.x_BillingPeriod || '-01' AS DATE) - INTERVAL 1 MONTH, '%Y-%m')
),
pairs AS (
    SELECT
        m.x_BillingPeriod AS x_IncurredPeriod, m.x_Provider, m.x_Account, m.x_Finality,
        ServiceName, x_Type, x_Direction, x_DestinationCountry, ChargeDescription, PricingUnit, BillingCurrency,
        sum(cost) FILTER (WHERE x_IncurredPeriod = m.before) AS cost0,
        sum(cost) FILTER (WHERE x_IncurredPeriod = m.x_BillingPeriod) AS cost1,
        max(quantity) FILTER (WHERE x_IncurredPeriod = m.before) AS quantity0,
        max(quantity) FILTER (WHERE x_IncurredPeriod = m.x_BillingPeriod) AS quantity1
    FROM months AS m
    JOIN cost ON cost.x_Provider = m.x_Provider AND cost.x_Account = m.x_Account
        AND x_IncurredPeriod IN (m.x_BillingPeriod, m.before)
    GROUP BY m.x_BillingPeriod, m.x_Provider, m.x_Account, m.x_Finality, ServiceName, x_Type, x_Direction, x_DestinationCountry,
        ChargeDescription, PricingUnit, BillingCurrency
),
whole AS (
    SELECT *,
        CAST(CAST(cost0 AS DECIMAL(38,9)) * 1000000000 AS HUGEINT) AS nano0,
        CAST(CAST(quantity0 AS DECIMAL(38,6)) * 1000000 AS HUGEINT) AS micro0,
        CAST(CAST(quantity1 AS DECIMAL(38,6)) * 1000000 AS HUGEINT) AS micro1
    FROM pairs
),
split AS (
    SELECT *,
        coalesce(cost1, 0) - coalesce(cost0, 0) AS x_Change,
        CASE WHEN cost0 IS NULL THEN cost1 ELSE 0 END AS x_Came,
        CASE WHEN cost1 IS NULL THEN -cost0 ELSE 0 END AS x_Went,
        CASE WHEN cost0 IS NOT NULL AND cost1 IS NOT NULL AND micro0 > 0 AND micro1 > 0 THEN
            CAST(CAST(CAST(nano0 * (micro1 - micro0) // micro0 AS DECIMAL(38,0)) * CAST('0.000000001' AS DECIMAL(10,9)) AS DECIMAL(38,9))
                AS DECIMAL(38,18))
        END AS through_quantity
    FROM whole
)
SELECT
    x_IncurredPeriod, x_Provider, x_Account, ServiceName, x_Type, x_Direction, x_DestinationCountry, ChargeDescription,
    PricingUnit, BillingCurrency,
    coalesce(cost1, 0) AS EffectiveCost,
    coalesce(cost0, 0) AS x_CostBefore,
    x_Change,
    CASE
        WHEN cost0 IS NULL THEN 'came'
        WHEN cost1 IS NULL THEN 'went'
        WHEN through_quantity IS NULL THEN 'other'
        WHEN abs(through_quantity) >= abs(x_Change - through_quantity) THEN 'quantity'
        ELSE 'unit price'
    END AS x_Why,
    x_Came, x_Went,
    coalesce(through_quantity, 0) AS x_ThroughQuantity,
    CASE WHEN through_quantity IS NOT NULL THEN x_Change - through_quantity ELSE 0 END AS x_ThroughPrice,
    CASE WHEN through_quantity IS NULL AND cost0 IS NOT NULL AND cost1 IS NOT NULL THEN x_Change ELSE 0 END AS x_ThroughOther,
    quantity1 AS PricingQuantity,
    quantity0 AS x_QuantityBefore,
    x_Finality,
    row_number() OVER (
        PARTITION BY x_IncurredPeriod, BillingCurrency
        ORDER BY abs(x_Change) DESC, x_Provider, x_Account, ServiceName, x_Type, x_Direction, x_DestinationCountry,
            ChargeDescription, PricingUnit
    ) AS x_Rank
FROM split
WHERE x_Change <> 0
ORDER BY x_IncurredPeriod, BillingCurrency, x_Rank;
COMMENT ON VIEW movers IS 'One row: one slice of an account (service, type, direction, destination, description, unit, currency) that moved against the month before, and why. By the month in which it was incurred, corrections included, money paid in left out. Months whose predecessor was never fetched are left out.';
COMMENT ON COLUMN movers.x_IncurredPeriod IS 'The month, YYYY-MM, on the provider''s clock; of a running month only what was used so far.';
COMMENT ON COLUMN movers.EffectiveCost IS 'What the slice cost in it; 0: nothing.';
COMMENT ON COLUMN movers.x_CostBefore IS 'What it cost in the month before; 0: nothing.';
COMMENT ON COLUMN movers.x_Change IS 'EffectiveCost - x_CostBefore = x_Came + x_Went + x_ThroughQuantity + x_ThroughPrice + x_ThroughOther, exactly.';
COMMENT ON COLUMN movers.x_Why IS 'The part that explains most of x_Change: came, went, quantity, unit price or other.';
COMMENT ON COLUMN movers.x_Came IS 'All of it, where the slice had no charge in the month before; else 0.';
COMMENT ON COLUMN movers.x_Went IS 'All of it, where the slice has no charge any more; else 0.';
COMMENT ON COLUMN movers.x_ThroughQuantity IS 'Through more or fewer units at the old unit cost: x_CostBefore x (PricingQuantity - x_QuantityBefore) / x_QuantityBefore, cut to 9 decimals.';
COMMENT ON COLUMN movers.x_ThroughPrice IS 'The rest: through another cost per unit, averaged over the slice, so through another mix within it too (carriers, tiers, free units).';
COMMENT ON COLUMN movers.x_ThroughOther IS 'All of it, where a charge of the slice has no quantity or the quantities are not above 0; else 0.';
COMMENT ON COLUMN movers.PricingQuantity IS 'Units billed in the month; null: the slice is gone, or one of its charges has no quantity.';
COMMENT ON COLUMN movers.x_QuantityBefore IS 'Units billed in the month before; null: as PricingQuantity.';
COMMENT ON COLUMN movers.x_Rank IS '1: the largest change, up or down, of the month and currency.';

CREATE VIEW unit_cost AS
WITH priced AS (
    SELECT
        x_IncurredPeriod, x_Provider, x_Account, ServiceName, x_Type, x_Direction, x_DestinationCountry, ChargeDescription,
    PricingUnit, BillingCurrency,
        sum(PricingQuantity) AS PricingQuantity,
        sum(EffectiveCost) FILTER (WHERE PricingQuantity IS NOT NULL) AS x_PricedCost,
        coalesce(sum(EffectiveCost) FILTER (WHERE PricingQuantity IS NULL), 0) AS x_UnpricedCost,
        count(*) AS x_Rows
    FROM spend
    GROUP BY ALL
)
SELECT
    x_IncurredPeriod, x_Provider, x_Account, ServiceName, x_Type, x_Direction, x_DestinationCountry, ChargeDescription,
    PricingUnit, BillingCurrency,
    PricingQuantity, x_PricedCost,
    CASE WHEN CAST(PricingQuantity AS DECIMAL(38,6)) > 0 THEN
        CAST(
            CAST(
                CAST(CAST(x_PricedCost AS DECIMAL(38,12)) * 1000000000000 AS HUGEINT) * 1000000
                // CAST(CAST(PricingQuantity AS DECIMAL(38,6)) * 1000000 AS HUGEINT) AS DECIMAL(38,0)
            ) * CAST('0.000000000001' AS DECIMAL(13,12)) AS DECIMAL(38,18)
        )
    END AS x_UnitCost,
    x_UnpricedCost, x_Rows
FROM priced
ORDER BY ALL;
COMMENT ON VIEW unit_cost IS 'One row: what one unit of one service to one destination cost on average in one month. By the month in which it was incurred, corrections included, money paid in left out.';
COMMENT ON COLUMN unit_cost.PricingQuantity IS 'Units billed; null: none of the charges has a quantity.';
COMMENT ON COLUMN unit_cost.x_PricedCost IS 'EffectiveCost of the charges that have a quantity.';
COMMENT ON COLUMN unit_cost.x_UnitCost IS 'x_PricedCost / PricingQuantity, cut to 12 decimals; null: there is no quantity above 0. Not the price list: free units, tiers and fees are in it.';
COMMENT ON COLUMN unit_cost.x_UnpricedCost IS 'EffectiveCost of the charges without a quantity; 0: none.';
COMMENT ON COLUMN unit_cost.x_Rows IS 'How many charges.';

CREATE VIEW daily_cost AS
WITH costs AS (
    SELECT x_Provider, x_Account, ServiceName, BillingCurrency, x_UsageDate, sum(EffectiveCost) AS cost, count(*) AS n
    FROM spend
    WHERE x_UsageDate IS NOT NULL
    GROUP BY ALL
),
series AS (
    SELECT x_Provider, x_Account, ServiceName, BillingCurrency, min(x_UsageDate) AS first_day
    FROM costs
    GROUP BY ALL
),
days AS (
    -- Only days that are there as a whole; a day without a charge cost 0.
    SELECT
        series.x_Provider, series.x_Account, series.ServiceName, series.BillingCurrency, e.x_BillingPeriod, e.x_Day,
        coalesce(costs.cost, 0) AS cost, coalesce(costs.n, 0) AS n
    FROM series
    JOIN x_expected AS e ON e.x_Provider = series.x_Provider AND e.x_Account = series.x_Account
        AND e.x_IsCovered AND e.x_Day >= series.first_day
    LEFT JOIN costs ON costs.x_Provider = series.x_Provider AND costs.x_Account = series.x_Account
        AND costs.ServiceName = series.ServiceName AND costs.BillingCurrency = series.BillingCurrency
        AND costs.x_UsageDate = e.x_Day
),
behind AS (
    SELECT d.x_Provider, d.x_Account, d.ServiceName, d.BillingCurrency, d.x_Day, b.cost
    FROM days AS d
    JOIN days AS b ON b.x_Provider = d.x_Provider AND b.x_Account = d.x_Account AND b.ServiceName = d.ServiceName
        AND b.BillingCurrency = d.BillingCurrency AND b.x_Day >= d.x_Day - 84 AND b.x_Day < d.x_Day
        AND (d.x_Day - b.x_Day) % 7 = 0
),
-- quantile_disc picks one of the days, so that the median stays the exact decimal it is; quantile_cont would go through doubles.
medians AS (
    SELECT x_Provider, x_Account, ServiceName, BillingCurrency, x_Day, quantile_disc(cost, 0.5) AS usual, count(*) AS n
    FROM behind
    GROUP BY ALL
),
spreads AS (
    SELECT
        behind.x_Provider, behind.x_Account, behind.ServiceName, behind.BillingCurrency, behind.x_Day,
        quantile_disc(abs(behind.cost - usual), 0.5) AS spread
    FROM behind
    JOIN medians ON medians.x_Provider = behind.x_Provider AND medians.x_Account = behind.x_Account
        AND medians.ServiceName = behind.ServiceName AND medians.BillingCurrency = behind.BillingCurrency
        AND medians.x_Day = behind.x_Day
    GROUP BY ALL
)
SELECT
    days.x_Day AS x_UsageDate, days.x_Provider, days.x_Account, days.ServiceName, days.BillingCurrency,
    days.cost AS EffectiveCost,
    medians.usual AS x_Usual,
    spreads.spread AS x_Spread,
    CAST(coalesce(medians.n, 0) AS INTEGER) AS x_DaysBehindIt,
    days.cost - medians.usual AS x_Deviation,
    coalesce(
        medians.n >= 6 AND abs(days.cost - medians.usual) > 5 * spreads.spread
        AND 2 * abs(days.cost - medians.usual) > abs(medians.usual) AND abs(days.cost - medians.usual) >= 1,
        FALSE
    ) AS x_IsAnomaly,
    days.n AS x_Rows,
    billing_periods.x_Finality
FROM days
LEFT JOIN medians ON medians.x_Provider = days.x_Provider AND medians.x_Account = days.x_Account
    AND medians.ServiceName = days.ServiceName AND medians.BillingCurrency = days.BillingCurrency AND medians.x_Day = days.x_Day
LEFT JOIN spreads ON spreads.x_Provider = days.x_Provider AND spreads.x_Account = days.x_Account
    AND spreads.ServiceName = days.ServiceName AND spreads.BillingCurrency = days.BillingCurrency AND spreads.x_Day = days.x_Day
LEFT JOIN billing_periods ON billing_periods.x_Provider = days.x_Provider AND billing_periods.x_Account = days.x_Account
    AND billing_periods.x_BillingPeriod = days.x_BillingPeriod
ORDER BY ALL;
COMMENT ON VIEW daily_cost IS 'One row: one day of one service of one account in one currency, beside what is usual on that weekday. Only days of accounts in accounts.toml that are there as a whole; what is charged by the month (all of Talkdesk) is left out. Corrections are on the day they correct.';
COMMENT ON COLUMN daily_cost.x_UsageDate IS 'The day on the provider''s clock.';
COMMENT ON COLUMN daily_cost.EffectiveCost IS 'What was used that day; 0: nothing, and that is known.';
COMMENT ON COLUMN daily_cost.x_Usual IS 'The median of the same weekday in the 12 weeks before, of two middle days the cheaper one; null: no such day is held.';
COMMENT ON COLUMN daily_cost.x_Spread IS 'How far such days usually are from x_Usual: the median of their absolute distances (MAD), of two middle ones the smaller.';
COMMENT ON COLUMN daily_cost.x_DaysBehindIt IS 'How many such days are held, at most 12.';
COMMENT ON COLUMN daily_cost.x_Deviation IS 'EffectiveCost - x_Usual.';
COMMENT ON COLUMN daily_cost.x_IsAnomaly IS 'True: x_DaysBehindIt is 6 or more, and x_Deviation, up or down, is more than 5 times x_Spread, more than half of x_Usual, and at least 1 in the currency.';
COMMENT ON COLUMN daily_cost.x_Rows IS 'How many charges.';

CREATE VIEW anomalies AS
SELECT * EXCLUDE (x_IsAnomaly)
FROM daily_cost
WHERE x_IsAnomaly
ORDER BY x_UsageDate DESC, BillingCurrency, abs(x_Deviation) DESC, x_Provider, x_Account, ServiceName;
COMMENT ON VIEW anomalies IS 'One row: one day on which one service of one account cost much more or less than is usual on that weekday; daily_cost.x_IsAnomaly says how much is much. The charges behind it are in anomaly_charges.';

CREATE VIEW anomaly_charges AS
SELECT
    anomalies.x_UsageDate, anomalies.x_Provider, anomalies.x_Account, anomalies.ServiceName, anomalies.BillingCurrency,
    anomalies.x_Deviation, spend.EffectiveCost, spend.PricingQuantity, spend.PricingUnit, spend.x_Type, spend.x_Direction,
    spend.x_DestinationCountry, spend.SubAccountId, spend.x_Dimensions, spend.x_RowSource
FROM anomalies
JOIN spend ON spend.x_Provider = anomalies.x_Provider AND spend.x_Account = anomalies.x_Account
    AND spend.ServiceName = anomalies.ServiceName AND spend.BillingCurrency = anomalies.BillingCurrency
    AND spend.x_UsageDate = anomalies.x_UsageDate
ORDER BY anomalies.x_UsageDate DESC, anomalies.x_Provider, anomalies.x_Account, anomalies.ServiceName, anomalies.BillingCurrency,
    spend.EffectiveCost DESC, spend.x_RowSource;
COMMENT ON VIEW anomaly_charges IS 'One row: one charge of a day in anomalies, dearest first, with the bytes it came from (x_RowSource). A day that fell to 0 has none.';
COMMENT ON COLUMN anomaly_charges.EffectiveCost IS 'Of this charge.';
