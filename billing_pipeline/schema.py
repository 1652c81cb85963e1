"""The common schema: the columns of a charge, with their types and what they mean, in FOCUS 1.4 names. Pure.

Money and quantities are decimal128(38, 18): 20 digits before the point and 18 behind it.
"""

from __future__ import annotations

import pyarrow as pa

DECIMAL = pa.decimal128(38, 18)
INSTANT = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, nullable: bool, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": meaning})


_FOCUS = [
    _column(
        "BilledCost",
        DECIMAL,
        False,
        "The row's amount as the provider states it, in BillingCurrency. Any sign. Never price x quantity.",
    ),
    _column(
        "BillingAccountId",
        pa.string(),
        False,
        "The account that pays: Infobip's, Talkdesk's and Plivo's own id; for YCloud the configured name.",
    ),
    _column("BillingAccountName", pa.string(), True, "Its name, where the provider states one."),
    _column("BillingCurrency", pa.string(), False, "ISO 4217 code. Never add rows of different currencies."),
    _column(
        "BillingPeriodEnd", INSTANT, False, "First instant after the month on the provider's clock; UTC, exclusive."
    ),
    _column(
        "BillingPeriodStart", INSTANT, False, "First instant of the month on the provider's clock; UTC, inclusive."
    ),
    _column("ChargeCategory", pa.string(), False, "Usage, Purchase, Tax, Credit or Adjustment."),
    _column("ChargeClass", pa.string(), True, "Correction for a row that corrects a month closed earlier; else null."),
    _column("ChargeDescription", pa.string(), True, "What was charged, in the provider's words."),
    _column("ChargeFrequency", pa.string(), False, "Usage-Based, Recurring or One-Time."),
    _column("ChargePeriodEnd", INSTANT, False, "First instant after the usage; UTC, exclusive."),
    _column("ChargePeriodStart", INSTANT, False, "When the usage began; UTC, inclusive."),
    _column("ConsumedQuantity", DECIMAL, True, "PricingQuantity of rows whose ChargeCategory is Usage; else null."),
    _column("ConsumedUnit", pa.string(), True, "Unit of ConsumedQuantity."),
    _column(
        "ContractedCost", DECIMAL, False, "BilledCost: no provider states a contracted price apart from what it bills."
    ),
    _column("EffectiveCost", DECIMAL, False, "BilledCost; 0 for money paid in to cover later usage (x_IsPrepayment)."),
    _column("HostProviderName", pa.string(), True, "Where the service runs: the provider."),
    _column("InvoiceDetailId", pa.string(), True, "The invoice's line; null until it is known."),
    _column("InvoiceId", pa.string(), True, "The invoice; null until it is known."),
    _column("InvoiceIssuerName", pa.string(), False, "Who sends the invoice: the provider."),
    _column("ListCost", DECIMAL, False, "BilledCost: no provider states list prices."),
    _column("PricingQuantity", DECIMAL, True, "Billed units; may be a fraction. Null where the provider states none."),
    _column(
        "PricingUnit", pa.string(), True, "Unit of PricingQuantity, in FOCUS spelling; the provider's own is x_UnitRaw."
    ),
    _column("ServiceCategory", pa.string(), False, "FOCUS category; the same for all four providers."),
    _column(
        "ServiceName",
        pa.string(),
        False,
        "Infobip category, Talkdesk type, YCloud channel, Plivo product, as the provider writes it.",
    ),
    _column("ServiceProviderName", pa.string(), False, "Who sells the service."),
    _column("ServiceSubcategory", pa.string(), False, "FOCUS subcategory; the same for all four providers."),
    _column(
        "SubAccountId",
        pa.string(),
        True,
        "The account below the paying one: Plivo sub-account, YCloud managed account.",
    ),
    _column("SubAccountName", pa.string(), True, "Its name, where the provider states one."),
]
_OURS = [
    _column("x_Account", pa.string(), False, "The account's name in accounts.toml."),
    _column(
        "x_CorrectionOf",
        pa.string(),
        True,
        "Of a correction: x_RowSource of the charge that it corrects; null for a charge that came new. Else null.",
    ),
    _column(
        "x_DestinationCountry",
        pa.string(),
        True,
        "Where the traffic went: ISO 3166-1 alpha-2 as a rule, as the provider writes it.",
    ),
    _column("x_Dimensions", pa.string(), False, "JSON object: every provider field that has no column of its own."),
    _column("x_Direction", pa.string(), True, "Inbound or outbound, as the provider writes it."),
    _column(
        "x_DurationSeconds", DECIMAL, True, "Billed seconds, where the provider states them beside the units (Plivo)."
    ),
    _column("x_FetchedAt", INSTANT, False, "When the fetch started that brought this row; UTC."),
    _column(
        "x_Finality", pa.string(), False, "provisional: the month may still change. final: closed, never overwritten."
    ),
    _column(
        "x_IsPrepayment",
        pa.bool_(),
        False,
        "True for money paid in (Talkdesk RECHARGE, CREDIT_COMMIT): not consumption.",
    ),
    _column("x_Provider", pa.string(), False, "infobip, plivo, talkdesk or ycloud."),
    _column(
        "x_RowSource",
        pa.string(),
        False,
        "The bytes behind the row: <landing>/<page>#<JSON pointer to the row in that page>. After '-': a charge taken back.",
    ),
    _column(
        "x_Surcharge",
        DECIMAL,
        True,
        "The part of BilledCost that is a carrier surcharge (Plivo). Inside BilledCost, never to be added.",
    ),
    _column(
        "x_Type",
        pa.string(),
        True,
        "The provider's own kind of row: Infobip traffic type, Talkdesk and Plivo type, YCloud conversation origin.",
    ),
    _column(
        "x_UnitPrice",
        DECIMAL,
        True,
        "Price per unit as stated; an average for YCloud. x quantity it need not give BilledCost.",
    ),
    _column("x_UnitRaw", pa.string(), True, "The unit as the provider writes it."),
    _column(
        "x_UsageDate",
        pa.date32(),
        True,
        "The provider's own date of the usage, on its clock; null for rows of a whole month.",
    ),
]

SCHEMA: pa.Schema = pa.schema(_FOCUS + _OURS)
"""Columns of a Parquet file of the lake: FOCUS columns alphabetically, then ours. x_BillingPeriod is in the path."""

LINEAGE = ("x_CorrectionOf", "x_FetchedAt", "x_Finality", "x_RowSource")
"""Columns that say where a row came from; two fetches with the same charges differ in these alone."""

UNKNOWN = "x_Unknown"
"""Helper column of `parse`: JSON object text of fields that the provider's page does not document. Merged into x_Dimensions."""
