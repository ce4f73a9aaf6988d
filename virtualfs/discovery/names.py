"""What names of tables and columns suggest: the customs of warehouses, in one place."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Container

__all__ = [
    "CALENDAR",
    "GENERIC_KEYS",
    "created_rank",
    "event_rank",
    "is_attribute_time",
    "is_changed_later",
    "is_number_of_time",
    "is_personal",
    "is_update_time",
    "is_validity",
    "names_a_row",
    "singular",
    "slug",
    "unused",
    "validity_pairs",
    "variable",
]

GENERIC_KEYS = frozenset({"id", "key", "code", "pk", "uuid", "guid", "sk", "number", "no", "nr"})
"""Names of key columns that say nothing of what they name."""
CALENDAR = frozenset(
    {"year", "quarter", "month", "week", "day", "weekday", "dow", "hour", "minute", "second"}
)
"""Parts of a time, which name nothing."""
_PAIRS = (
    ("from", "to"), ("from", "until"), ("from", "thru"), ("start", "end"), ("begin", "end"),
    ("started", "ended"), ("since", "until"), ("effective", "expiry"),
    ("effective", "expiration"), ("effective", "expires"),
)  # fmt: skip
_CREATED = (
    "created_timestamp", "created_at", "created_on", "created", "creation_time", "inserted_at",
    "insert_time", "ingested_at", "ingestion_time", "loaded_at", "load_time", "load_ts",
    "written_at", "recorded_at", "received_at", "processed_at", "synced_at", "_loaded_at",
    "_fivetran_synced", "_airbyte_extracted_at", "_sdc_received_at", "etl_at", "dbt_updated_at",
)  # fmt: skip
_EVENT = (
    "event_timestamp", "event_time", "event_ts", "event_at", "event_date", "occurred_at",
    "happened_at", "observed_at", "measured_at", "logged_at", "timestamp", "ts", "time",
    "datetime", "time_hour", "as_of", "asof", "snapshot_date", "date",
)  # fmt: skip
_VALIDITY = re.compile(r"^(dbt_|row_|record_)?(valid|effective)(?![a-z])", re.IGNORECASE)
_LATER = re.compile(
    r"(^|_)(status|state|stage|outcome|result|reason|refund\w*|returned|cancel\w*|shipped|"
    r"delivered|paid|closed|resolved|is_\w+ed)($|_)",
    re.IGNORECASE,
)
_NUMBER_OF_TIME = re.compile(r"(^|_)(at|ts|time|timestamp|epoch)(_(s|ms|us))?$", re.IGNORECASE)
_UPDATED = re.compile(r"^(last_)?(updated|modified|changed|refreshed)(_(at|on|time|ts|date))?$")
_ATTRIBUTE = re.compile(
    r"birth|^born|dob|signup|sign_up|registered|joined|hired|founded|launch|since|expir|due|"
    r"first_|last_|next_|valid|effective|deleted|closed|deadline|renew",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"(^|_)(e?mail|email_address|phone|mobile|fax|ssn|passport|password|passwd|iban|card_number|"
    r"first_name|last_name|surname|full_name|street|address|address_line\d?|birth_?date|dob|"
    r"date_of_birth|ip|ip_address|token|secret)($|_)",
    re.IGNORECASE,
)


def slug(name: str) -> str:
    """Return a name for a definition: lower case, words joined by ``_``.

    >>> slug("Order Items"), slug("2024 sales"), slug("größe"), slug("customerOrders")
    ('order_items', '2024_sales', 'größe', 'customer_orders')
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"_+", "_", re.sub(r"\W+", "_", words)).strip("_").lower() or "table"


def variable(name: str, taken: Container[str] = ()) -> str:
    """Return a Python name for a definition, none that is taken.

    >>> variable("class"), variable("2024_sales"), variable("orders", {"orders"})
    ('class_', 'v_2024_sales', 'orders_2')
    """
    text = unicodedata.normalize("NFKC", re.sub(r"\W", "_", name))  # as Python reads names
    if not text.isidentifier():
        text = f"v_{text}"
    return unused(f"{text}_" if keyword.iskeyword(text) else text, taken)


def unused(name: str, taken: Container[str]) -> str:
    """Return the name, with a number behind it if it is taken.

    >>> unused("orders", {"orders", "orders_2"})
    'orders_3'
    """
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def singular(name: str) -> str:
    """Return what one row of a table is called.

    >>> [singular(name) for name in ("customers", "companies", "boxes", "status", "news_feed")]
    ['customer', 'company', 'box', 'status', 'news_feed']
    """
    prefixed = re.sub(r"^(dim|fct|fact|stg|tbl|t|raw|src|mart|vw|v)_(?=.)", "", name)
    for plural, one in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if prefixed.endswith(plural) and len(prefixed) > len(plural) + 1:
            return prefixed.removesuffix(plural) + one
    if prefixed.endswith("s") and not prefixed.endswith(("ss", "us", "is")) and len(prefixed) > 2:
        return prefixed.removesuffix("s")
    return prefixed


def validity_pairs(names: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of columns that look like the ends of one span of time.

    >>> validity_pairs(["id", "valid_from", "valid_to", "start_date"])
    [('valid_from', 'valid_to')]
    """
    lower = {name.lower(): name for name in names}
    found = []
    for name in names:
        for start, end in _PAIRS:
            pattern = rf"(?<![a-z]){start}(?![a-z])"
            other = re.sub(pattern, end, name.lower())
            if other != name.lower() and other in lower:
                found.append((name, lower[other]))
    return list(dict.fromkeys(found))


def event_rank(name: str, table: str) -> int | None:
    """Return how much a column's name says that it dates an event, 0 the most; None nothing.

    ``orders.ordered_at``, ``orders.order_date`` and ``clicks.click_ts`` are named after the table.
    """
    text = name.lower()
    if text in _EVENT:
        return _EVENT.index(text)
    stem = singular(slug(table)).rstrip("e")
    if re.fullmatch(rf"{re.escape(stem)}\w*(at|on|date|time|ts|timestamp|datetime)", text):
        return 5
    return None


def created_rank(name: str) -> int | None:
    """Return how much a column's name says that it dates the writing of a row, 0 the most."""
    return _CREATED.index(name.lower()) if name.lower() in _CREATED else None


def is_update_time(name: str) -> bool:
    """Tell whether a column's name says that its row is written over.

    >>> is_update_time("updated_at"), is_update_time("ordered_at")
    (True, False)
    """
    return bool(_UPDATED.match(name.lower()))


def is_attribute_time(name: str) -> bool:
    """Tell whether a time describes the thing itself, as a birth date does."""
    return bool(_ATTRIBUTE.search(name))


def is_validity(name: str) -> bool:
    """Tell whether a time's name says that it bounds when a row is true.

    Others that come in pairs bound something that went on, as a ride does.

    >>> is_validity("valid_from"), is_validity("effective_date"), is_validity("start_time")
    (True, True, False)
    """
    return bool(_VALIDITY.match(name))


def is_changed_later(name: str) -> bool:
    """Tell whether a column's name says that its value is often set after the row's event.

    >>> is_changed_later("order_status"), is_changed_later("total")
    (True, False)
    """
    return bool(_LATER.search(name))


def is_number_of_time(name: str) -> bool:
    """Tell whether a number's name says that it may count the time since 1970.

    >>> is_number_of_time("created_ts"), is_number_of_time("amount")
    (True, False)
    """
    return bool(_NUMBER_OF_TIME.search(name))


def names_a_row(name: str) -> bool:
    """Tell whether a column's name says that it is the number of something.

    >>> names_a_row("payment_id"), names_a_row("paid")
    (True, False)
    """
    return slug(name).endswith(("_id", "_uuid", "_guid", "_key", "_number", "_no"))


def is_personal(name: str) -> bool:
    """Tell whether a column's name says that it may hold personal data or a secret.

    >>> is_personal("billing_email"), is_personal("description")
    (True, False)
    """
    return bool(_PERSONAL.search(name))
