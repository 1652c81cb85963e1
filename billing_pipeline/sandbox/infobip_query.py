"""Reads a billing usage query as Infobip documents it, and says everything that is wrong with one.

Source: https://www.infobip.com/docs/billing-usage-api/query-billing-data, the OpenAPI `billing-usage-api` (read 2026-11)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec

from billing_pipeline.sandbox.infobip_traffic import CATEGORIES, SUBCATEGORIES

DIMENSIONS = (
    *("DAY", "MONTH", "APPLICATION_ID", "ENTITY_ID", "ACCOUNT_NAME", "ACCOUNT_KEY", "CATEGORY_CODE", "CATEGORY_NAME"),
    *("SUBCATEGORY_CODE", "SUBCATEGORY_NAME", "USER_NAME", "DIRECTION", "TRAFFIC_TYPE", "SENDER", "SENDER_TYPE"),
    *("NETWORK_NAME", "NORM_NET_CODE", "COUNTRY_NAME", "COUNTRY_CODE", "COUNTRY_PREFIX", "CAMPAIGN_ID"),
    *("CAMPAIGN_REFERENCE", "TEMPLATE_ID"),
)
FILTERS = {
    "categories": "CATEGORY_CODE",
    "trafficTypes": "TRAFFIC_TYPE",
    "campaignReferenceIds": "CAMPAIGN_REFERENCE",
    "countryCodes": "COUNTRY_CODE",
    "accountKeys": "ACCOUNT_KEY",
    "senders": "SENDER",
    "senderTypes": "SENDER_TYPE",
    "directions": "DIRECTION",
    "subCategories": "SUBCATEGORY_CODE",
    "campaignIds": "CAMPAIGN_ID",
    "templateIds": "TEMPLATE_ID",
}
CLOSED_LISTS = {
    "categories": tuple(CATEGORIES),
    "directions": ("OUTBOUND", "INBOUND"),
    "subCategories": tuple(SUBCATEGORIES),
}


@dataclass(frozen=True)
class Query:
    """A request that was understood."""

    callback: str
    since: date
    until: date
    """As asked: exclusive, or inclusive under that switch."""
    dimensions: tuple[str, ...]
    """The defaults first, then as asked."""
    filters: Mapping[str, frozenset[str | int]]
    """Dimension to allowed values."""
    platforms: tuple[Mapping[str, str], ...]
    unfinalized: bool

    def wants(self, facts: Mapping[str, str | int]) -> bool:
        """Whether a stream passes all filters."""
        named = {"applicationId": facts["APPLICATION_ID"], "entityId": facts["ENTITY_ID"]}
        return all(facts[dimension] in allowed for dimension, allowed in self.filters.items()) and (
            not self.platforms or any(platform.items() <= named.items() for platform in self.platforms)
        )


def read(body: bytes, now: datetime, inclusive: bool) -> tuple[Query | None, list[tuple[str, str]]]:
    """The query, or None and what is wrong with it, as (property, violation)."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None, [("body", "must be valid JSON")]
    wrong: list[tuple[str, str]] = []
    said = said if isinstance(said, dict) else {}
    request = _object(said, "request", "", wrong)
    filters = _object(request, "filterBy", "request.", wrong)
    interval = _object(filters, "dateInterval", "request.filterBy.", wrong)
    options = request.get("options") or {}

    callback = said.get("callbackUrl")
    if not isinstance(callback, str) or urlsplit(callback).scheme not in ("http", "https"):
        wrong.append(("callbackUrl", "must be a valid URL"))
    days = [_day(interval, name, wrong) for name in ("sentSince", "sentUntil")]
    since, until = days
    if since and until:
        end = until + timedelta(days=1) if inclusive else until
        month = now.year * 12 + now.month - 1 - 2
        if since >= end:
            wrong.append(("request.filterBy.dateInterval.sentUntil", "must be after sentSince"))
        if since < date(month // 12, month % 12 + 1, 1):
            violation = "data is available for the current month and the previous two calendar months only"
            wrong.append(("request.filterBy.dateInterval.sentSince", violation))
        if (end.year * 12 + end.month, end.day) > (since.year * 12 + since.month + 3, since.day):
            wrong.append(("request.filterBy.dateInterval", "must not exceed 3 months"))

    aggregate = _list(request, "aggregateBy", "request.", str, DIMENSIONS, wrong)
    if not aggregate and not any(where.startswith("request.aggregateBy") for where, _ in wrong):
        wrong.append(("request.aggregateBy", "must not be empty"))
    allowed: dict[str, frozenset[str | int]] = {}
    for name, dimension in FILTERS.items():
        kind = int if name == "campaignIds" else str
        if name in filters:
            values = _list(filters, name, "request.filterBy.", kind, CLOSED_LISTS.get(name), wrong)
            allowed |= {dimension: frozenset(values)} if values else {}
    platforms = _list(filters, "platforms", "request.filterBy.", dict, None, wrong)
    unfinalized = options.get("includeUnfinalizedData", True) if isinstance(options, dict) else None
    if not isinstance(unfinalized, bool):
        wrong.append(("request.options.includeUnfinalizedData", "must be a boolean"))
    if wrong or not since or not until:
        return None, wrong

    defaults = []
    if not {"ACCOUNT_NAME", "ACCOUNT_KEY"} & set(aggregate):
        defaults.append("ACCOUNT_NAME")
    if not {"CATEGORY_CODE", "CATEGORY_NAME"} & set(aggregate):
        defaults.append("CATEGORY_CODE")
    dimensions = (*defaults, *aggregate)
    return Query(str(callback), since, until, dimensions, allowed, tuple(platforms), bool(unfinalized)), []


def _object(parent: dict[str, Any], name: str, where: str, wrong: list[tuple[str, str]]) -> dict[str, Any]:
    value = parent.get(name)
    if isinstance(value, dict):
        return value
    wrong.append((where + name, "must not be null" if value is None else "must be an object"))
    return {}


def _day(interval: dict[str, Any], name: str, wrong: list[tuple[str, str]]) -> date | None:
    said = interval.get(name)
    try:
        day = date.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        day = None
    if day is None or day.isoformat() != said:
        wrong.append((f"request.filterBy.dateInterval.{name}", "must be a date in yyyy-MM-dd format"))
        return None
    return day


def _list(
    parent: dict[str, Any],
    name: str,
    where: str,
    kind: type,
    known: tuple[str, ...] | None,
    wrong: list[tuple[str, str]],
) -> list[Any]:
    values = parent.get(name) or []
    if not isinstance(values, list):
        wrong.append((where + name, "must be an array"))
        return []
    for place, value in enumerate(values):
        if type(value) is not kind or (known is not None and value not in known):
            expected = f"must be any of {', '.join(known)}" if known else "has the wrong type"
            wrong.append((f"{where}{name}[{place}]", expected))
        elif value in values[:place]:
            wrong.append((f"{where}{name}[{place}]", "must be unique"))
    return values
