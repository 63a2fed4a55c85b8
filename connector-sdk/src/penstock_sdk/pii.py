"""Which fields look like personal data, judged by their names and by sample values. Pure functions; no value is stored.

Names are divided into words (`billingEmail`, `billing_email`: billing, email) and judged together with the name of the object
that contains them, so `name.first` is the name of a person. Not personal data are booleans, fields whose last word describes
the data (`email_verified`, `phone_type`, `address_id`), and `name` alone, which may be the name of anything.

| class | by words | by samples |
|---|---|---|
| email | email, e-mail, mail | x@y.z |
| phone | phone, mobile, fax, telephone, msisdn | + and 8 to 15 digits |
| person-name | first, last, middle, given, family, full, maiden with name; surname; the name of a person, customer, contact, … | |
| address | street, address (not of a network), zip, postcode | |
| birth-date | birth, birthday, birthdate, dob | |
| national-id | ssn, passport, national or tax with id or number, nin, licence with driver | |
| payment | iban, bic, card or account with number | an IBAN or a card's number whose check digits are right |
| ip-address | ip | an IPv4 or IPv6 address |
| location | latitude, longitude, lat, lng, geolocation | |
| special | gender, sex, religion, ethnicity, nationality, disability, diagnosis | |

Samples decide if at least five values are known and four of five are of one class.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

from penstock_sdk.contract import Record
from penstock_sdk.field_paths import format_path
from penstock_sdk.json_types import JsonSchema

__all__ = [
    "PiiClass",
    "suggest_by_name",
    "suggest_by_values",
    "suggest_fields",
]

PiiClass = Literal[
    "email",
    "phone",
    "person-name",
    "address",
    "birth-date",
    "national-id",
    "payment",
    "ip-address",
    "location",
    "special",
]
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
PEOPLE = frozenset(
    {
        "person",
        "customer",
        "contact",
        "user",
        "employee",
        "patient",
        "student",
        "owner",
        "author",
        "holder",
        "billing",
        "shipping",
        "recipient",
        "sender",
        "member",
        "guest",
        "client",
        "buyer",
        "seller",
    }
)
ABOUT = frozenset(
    {
        "id",
        "ids",
        "count",
        "at",
        "type",
        "kind",
        "status",
        "verified",
        "sent",
        "enabled",
        "flag",
        "template",
        "subject",
        "domain",
        "opened",
        "clicked",
        "format",
        "version",
        "url",
        "valid",
        "confirmed",
        "total",
    }
)
SINGLE: dict[str, PiiClass] = {
    "email": "email", "emails": "email", "mail": "email",
    "phone": "phone", "telephone": "phone", "mobile": "phone", "fax": "phone", "msisdn": "phone", "cellphone": "phone",
    "surname": "person-name", "firstname": "person-name", "lastname": "person-name", "fullname": "person-name",
    "username": "person-name", "lname": "person-name", "fname": "person-name",
    "street": "address", "address": "address", "zip": "address", "zipcode": "address", "postcode": "address",
    "birth": "birth-date", "birthday": "birth-date", "birthdate": "birth-date", "dob": "birth-date",
    "ssn": "national-id", "passport": "national-id", "nin": "national-id",
    "iban": "payment", "bic": "payment",
    "ip": "ip-address", "ipaddress": "ip-address",
    "latitude": "location", "longitude": "location", "lat": "location", "lng": "location", "geolocation": "location",
    "gender": "special", "sex": "special", "religion": "special", "ethnicity": "special", "nationality": "special",
    "disability": "special", "diagnosis": "special",
}  # fmt: skip
PAIRS: list[tuple[frozenset[str], frozenset[str], PiiClass]] = [
    (
        frozenset({"first", "last", "middle", "given", "family", "full", "maiden"}) | PEOPLE,
        frozenset({"name"}),
        "person-name",
    ),
    (frozenset({"national", "tax", "identity"}), frozenset({"id", "number", "no"}), "national-id"),
    (frozenset({"driver", "drivers", "driving"}), frozenset({"licence", "license"}), "national-id"),
    (frozenset({"card", "account"}), frozenset({"number", "no", "pan"}), "payment"),
    (frozenset({"postal"}), frozenset({"code"}), "address"),
]
NETWORK = frozenset({"ip", "mac", "web", "host", "network", "server", "wallet", "memory"})
ENOUGH, SHARE, LOOKED_AT = 5, 0.8, 100
DEEPEST = 10


def suggest_fields(schema: JsonSchema, samples: Iterable[Record] = ()) -> dict[str, PiiClass]:
    """Return the fields of a stream that look like personal data, by their paths (`address.street`), with their classes.

    `samples` are some of its records. The result holds no value of them.
    """
    rows = list(islice(samples, LOOKED_AT))
    found: dict[str, PiiClass] = {}
    for path, node in _fields(schema, (), 0):
        named = None if _is_boolean(node) else suggest_by_name(path[-1], path[-2] if len(path) > 1 else "")
        seen = named or suggest_by_values(value for row in rows for value in _values(row, path))
        if seen:
            found[format_path(path)] = seen
    return found


def _fields(node: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], JsonSchema]]:
    """Yield every field. The items of a list have the path of the list."""
    if not isinstance(node, Mapping) or depth > DEEPEST:
        return
    properties = node.get("properties")
    for name, child in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(child, Mapping):
            if "properties" not in child:
                yield (*path, name), child
            yield from _fields(child, (*path, name), depth + 1)
    yield from _fields(node.get("items"), path, depth + 1)


def _is_boolean(node: JsonSchema) -> bool:
    declared = node.get("type")
    return declared == "boolean" or (isinstance(declared, list) and set(declared) - {"null"} == {"boolean"})


@lru_cache(maxsize=20_000)
def suggest_by_name(name: str, above: str = "") -> PiiClass | None:
    """Return the class that a field's name suggests. `above` is the name of the object that contains it."""
    words = [word.lower() for word in WORD.findall(name)]
    if not words or {"is", "has"} & {words[0]}:
        return None
    around = {*words, *(word.lower() for word in WORD.findall(above))}
    for one, other, kind in PAIRS:
        if one & around and other & around and (one | other) & set(words):
            return kind
    if words[-1] in ABOUT:
        return None
    if "e" in words and "mail" in words:
        return "email"
    kinds = [SINGLE[word] for word in words if word in SINGLE]
    if "ip-address" in kinds:
        return "ip-address"
    return next((kind for kind in kinds if kind != "address" or not NETWORK & around), None)


def suggest_by_values(values: Iterable[Any]) -> PiiClass | None:
    """Return the class of most of the values; None if too few are known."""
    known = [value for value in values if isinstance(value, str) and value]
    if len(known) < ENOUGH:
        return None
    counted = Counter(kind for value in known if (kind := _class_of(value)))
    for kind, count in counted.most_common(1):
        if count >= SHARE * len(known):
            return kind
    return None


def _values(row: Any, path: tuple[str, ...], depth: int = 0) -> Iterator[Any]:
    if isinstance(row, list | tuple):
        for item in row if depth < DEEPEST else ():  # a list may hold itself
            yield from _values(item, path, depth + 1)
    elif not path:
        yield row
    elif isinstance(row, Mapping):
        yield from _values(row.get(path[0]), path[1:], depth)


def _class_of(value: str) -> PiiClass | None:
    return next((kind for kind, looks in LOOKS.items() if looks(value)), None)


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_payment(value: str) -> bool:
    plain = value.replace(" ", "").replace("-", "")
    return _is_iban(plain.upper()) or (plain.isdecimal() and 13 <= len(plain) <= 19 and _luhn(plain))  # noqa: PLR2004


def _is_iban(text: str) -> bool:
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", text):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(digit - 9 if digit > 9 else digit for digit in doubled) % 10 == 0  # noqa: PLR2004


LOOKS: dict[PiiClass, Callable[[str], bool]] = {
    "email": lambda value: re.fullmatch(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}", value) is not None,
    "phone": lambda value: re.fullmatch(r"\+[0-9][0-9 ().-]{6,20}[0-9]", value) is not None,
    "payment": _is_payment,
    "ip-address": _is_ip,
}
