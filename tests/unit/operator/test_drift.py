"""What each policy makes of each sort of drift, and when an alert is resolved."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.schemas.diff import StreamShape
from penstock_operator.schemas.drift_policy import (
    AcknowledgedDrift,
    DiscoveredVersion,
    DriftAlert,
    DriftVerdict,
    Policy,
    RegisteredVersion,
    is_resolved,
    judge,
    seen,
)
from penstock_sdk.json_types import properties_of
from penstock_sdk.protocol import DiscoveredStream

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
POLICIES: tuple[Policy, ...] = ("evolve", "freeze", "discard-new", "block-pii")


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def discovered(schema: dict[str, Any], **more: Any) -> DiscoveredVersion:
    return seen(DiscoveredStream(name="people", schema_=schema, **more))


BASE = RegisteredVersion(3, StreamShape(record(n=WHOLE, name=TEXT), ("n",)))
SAME = discovered(record(n=WHOLE, name=TEXT), primary_key=["n"])
ADDED = discovered(record(n=WHOLE, name=TEXT, extra={"type": "object", "properties": {"a": TEXT}}), primary_key=["n"])
REMOVED = discovered(record(n=WHOLE), primary_key=["n"])
RETYPED = discovered(record(n=WHOLE, name=WHOLE), primary_key=["n"])


def verdict(
    policy: Policy,
    now: DiscoveredVersion,
    known: RegisteredVersion | None = BASE,
    accepted: AcknowledgedDrift | None = None,
    *,
    can_drop: bool = True,
) -> DriftVerdict:
    return judge(policy, known, now, accepted or AcknowledgedDrift(), can_drop=can_drop)


def told(found: DriftVerdict) -> list[tuple[str, str]]:
    return [(alert.kind, alert.path) for alert in found.alerts]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_the_same_stays_the_version_it_was(policy: Policy) -> None:
    found = verdict(policy, SAME)
    assert (found.version, found.changed, found.alerts, found.refusal, found.drop) == (3, False, (), "", ())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_first_look_is_version_one_and_no_drift(policy: Policy) -> None:
    found = verdict(policy, SAME, known=None)
    assert (found.version, found.changed, found.alerts, found.refusal) == (1, True, (), "")


def test_evolve_takes_a_compatible_change_without_a_word() -> None:
    found = verdict("evolve", ADDED)
    assert (found.version, told(found), found.refusal) == (4, [], "")


def test_evolve_takes_an_incompatible_change_and_tells() -> None:
    found = verdict("evolve", REMOVED)
    assert (found.version, told(found), found.refusal) == (4, [("FieldRemoved", "name")], "")
    assert found.alerts[0].baseline == 3


@pytest.mark.parametrize("now", [ADDED, REMOVED, RETYPED])
def test_freeze_refuses_any_change_and_says_what_to_do(now: DiscoveredVersion) -> None:
    found = verdict("freeze", now)
    assert (found.version, found.changed, found.recorded) == (3, False, BASE.shape)
    assert "'people' is frozen" in found.refusal
    assert found.alerts[0].message in found.refusal
    assert "penstock alerts ack" in found.refusal


def test_a_frozen_stream_goes_on_once_every_change_is_accepted() -> None:
    both = discovered(record(n=WHOLE, name=WHOLE, extra=TEXT), primary_key=["n"])
    pending = verdict("freeze", both).alerts
    assert len(pending) == 2
    assert verdict("freeze", both, accepted=AcknowledgedDrift(frozenset(pending[:1]))).refusal
    found = verdict("freeze", both, accepted=AcknowledgedDrift(frozenset(pending)))
    assert (found.version, found.changed, found.refusal, found.alerts) == (4, True, "", ())


def test_what_was_accepted_against_an_older_version_is_not_accepted_again() -> None:
    (old,) = verdict("freeze", REMOVED).alerts
    later = RegisteredVersion(5, BASE.shape)
    assert verdict("freeze", REMOVED, known=later, accepted=AcknowledgedDrift(frozenset({old}))).refusal


def test_discard_new_leaves_new_fields_out_and_keeps_the_version() -> None:
    found = verdict("discard-new", ADDED)
    assert (found.version, found.changed, found.drop, found.refusal) == (3, False, (("extra",),), "")
    assert told(found) == [("FieldDiscarded", "extra")]
    assert verdict("discard-new", ADDED, accepted=AcknowledgedDrift(frozenset(found.alerts))).alerts == ()


def test_discard_new_finds_fields_in_lists_and_objects() -> None:
    old = RegisteredVersion(1, StreamShape(record(n=WHOLE, lines={"type": "array", "items": record(a=TEXT)})))
    now = discovered(record(n=WHOLE, lines={"type": "array", "items": record(a=TEXT, b=TEXT)}))
    found = verdict("discard-new", now, known=old)
    assert (found.drop, found.changed, told(found)) == ((("lines", "b"),), False, [("FieldDiscarded", "lines[].b")])


def test_discard_new_takes_other_changes_as_evolve_does() -> None:
    now = discovered(record(n=WHOLE, name=WHOLE, extra=TEXT), primary_key=["n"])
    found = verdict("discard-new", now)
    assert (found.version, found.changed, found.drop) == (4, True, (("extra",),))
    assert "extra" not in properties_of(found.recorded.schema)
    assert sorted(told(found)) == [("FieldDiscarded", "extra"), ("TypeChanged", "name")]


def test_discard_new_never_leaves_out_what_names_a_record() -> None:
    now = discovered(record(n=WHOLE, name=TEXT, uuid=TEXT), primary_key=["uuid"])
    found = verdict("discard-new", now)
    assert (found.drop, told(found)) == ((), [("PrimaryKeyChanged", "")])


def test_a_new_field_behind_a_reference_is_left_out_again_and_again() -> None:
    def shape(inner: dict[str, Any]) -> dict[str, Any]:
        return {**record(n=WHOLE, inner={"$ref": "#/$defs/I"}), "$defs": {"I": inner}}

    old = RegisteredVersion(2, StreamShape(shape(record(a=TEXT))))
    found = verdict("discard-new", discovered(shape(record(a=TEXT, b=TEXT))), known=old)
    assert (found.version, found.changed, found.drop, found.recorded) == (2, False, (("inner", "b"),), old.shape)


def test_an_sdk_that_cannot_leave_fields_out_may_not_read_them() -> None:
    found = verdict("discard-new", ADDED, can_drop=False)
    assert "SDK is too old" in found.refusal
    assert not verdict("discard-new", SAME, can_drop=False).refusal


PERSONAL = discovered(record(n=WHOLE, email=TEXT, phone=TEXT), pii=["email"], pii_suggested={"phone": "phone"})


@pytest.mark.parametrize("known", [None, RegisteredVersion(1, PERSONAL.shape), BASE])
def test_block_pii_refuses_what_is_declared_or_suggested_until_all_is_accepted(known: RegisteredVersion | None) -> None:
    found = verdict("block-pii", PERSONAL, known=known)
    personal = [alert.path for alert in found.alerts if alert.kind == "PiiAdded"]
    assert sorted(personal) == ["email", "phone"]
    assert "'email' is declared" in found.refusal
    assert "'phone' looks like personal data (phone)" in found.refusal
    assert verdict(
        "block-pii", PERSONAL, known=known, accepted=AcknowledgedDrift(personal=frozenset({"email"}))
    ).refusal
    assert not verdict(
        "block-pii", PERSONAL, known=known, accepted=AcknowledgedDrift(personal=frozenset(personal))
    ).refusal


def test_evolve_tells_of_personal_data_that_is_declared_later_and_reads_on() -> None:
    known = RegisteredVersion(1, StreamShape(PERSONAL.shape.schema))
    found = verdict("evolve", PERSONAL, known=known)
    assert (told(found), found.refusal) == ([("PiiAdded", "email")], "")


def resolved(alert: DriftAlert, policy: Policy, now: DiscoveredVersion, known: RegisteredVersion = BASE) -> bool:
    return is_resolved(alert, policy, BASE.shape, now, verdict(policy, now, known=known))


def test_an_alert_is_resolved_when_the_schema_goes_back_and_not_before() -> None:
    (alert,) = verdict("evolve", REMOVED).alerts
    evolved = RegisteredVersion(4, REMOVED.shape)
    assert not resolved(alert, "evolve", REMOVED, known=evolved)
    assert resolved(alert, "evolve", SAME, known=evolved)


def test_an_alert_of_a_frozen_stream_is_resolved_when_the_schema_goes_back() -> None:
    (alert,) = verdict("freeze", ADDED).alerts
    assert not resolved(alert, "freeze", ADDED)
    assert resolved(alert, "freeze", SAME)
    assert resolved(alert, "evolve", ADDED), "the policy takes a compatible change now"


def test_an_alert_of_a_discarded_field_is_resolved_when_it_is_gone_or_taken() -> None:
    (alert,) = verdict("discard-new", ADDED).alerts
    assert not resolved(alert, "discard-new", ADDED)
    assert resolved(alert, "discard-new", SAME)
    assert resolved(alert, "evolve", ADDED)


def test_an_alert_of_personal_data_is_resolved_when_the_field_is_not_personal_any_more() -> None:
    alerts = verdict("block-pii", PERSONAL).alerts
    phone = next(alert for alert in alerts if alert.path == "phone")
    assert not resolved(phone, "block-pii", PERSONAL)
    assert resolved(phone, "evolve", PERSONAL), "without the policy a suggestion is no alert"
    assert resolved(phone, "block-pii", SAME)
