"""The settings that Google's emulator does not keep or check: made, compared and exported, without network."""

from __future__ import annotations

from typing import Any

import pytest

from cloudevents_bridge import Topic, connect, driver
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge_gcp import native, options, pb, settings

HERE = options.read(parse_url("gcp://my-project"), {}, {})
KEY = "projects/my-project/locations/europe-west1/keyRings/r/cryptoKeys/k"
SCHEMA = "projects/my-project/schemas/order"
NATIVE: dict[str, Any] = {
    "labels": {"team": "shop"},
    "retention": 86_400,
    "kms_key": KEY,
    "regions": ["europe-west1", "europe-west4"],
    "schema": SCHEMA,
    "schema_encoding": "BINARY",
}


def _topic(**native: Any) -> driver.Topic:
    return driver.Topic("orders", native=native)


def _billing(place: driver.Topic, **native: Any) -> driver.Subscription:
    return driver.Subscription(place, "billing", native=native)


def _differences(have: dict[str, Any], want: dict[str, Any]) -> dict[str, tuple[str | None, str, bool]]:
    place = _topic(**want)
    found = settings.differences(place, settings.topic(HERE, _topic(**have)), settings.topic(HERE, place))
    return {change.setting: (change.have, change.want, change.conflict) for change in found}


def test_a_topic_is_made_as_its_native_settings_say() -> None:
    made = settings.topic(HERE, _topic(**NATIVE))
    assert dict(made.labels) == {"team": "shop"}
    assert made.message_retention_duration.ToSeconds() == 86_400
    assert made.kms_key_name == KEY
    assert list(made.message_storage_policy.allowed_persistence_regions) == ["europe-west1", "europe-west4"]
    assert (made.schema_settings.schema, pb.Encoding(made.schema_settings.encoding).name) == (SCHEMA, "BINARY")


def test_a_schema_is_json_where_nothing_is_said() -> None:
    made = settings.topic(HERE, _topic(schema=SCHEMA))
    assert pb.Encoding(made.schema_settings.encoding).name == "JSON"


def test_dead_letters_are_kept_where_and_under_the_key_that_events_are_but_without_their_schema() -> None:
    made = settings.topic(HERE, driver.DeadLetters(_billing(_topic(**NATIVE))))
    assert made.kms_key_name == KEY
    assert list(made.message_storage_policy.allowed_persistence_regions) == ["europe-west1", "europe-west4"]
    assert not made.schema_settings.schema, "what breaks the schema could not be dead-lettered"


@pytest.mark.parametrize(
    ("setting", "want", "shown"),
    [
        ("labels", {"team": "web"}, ("team=shop", "team=web", False)),
        ("retention", 172_800, ("86400 s", "172800 s", False)),
        ("kms_key", KEY + "2", (KEY, KEY + "2", True)),
        ("regions", ["europe-west4"], ("europe-west1, europe-west4", "europe-west4", False)),
        ("schema", SCHEMA + "2", (f"{SCHEMA} as BINARY", f"{SCHEMA}2 as BINARY", False)),
    ],
)
def test_a_difference_is_shown_and_only_a_key_is_a_conflict(
    setting: str, want: object, shown: tuple[str, str, bool]
) -> None:
    assert _differences(NATIVE, {**NATIVE, setting: want}) == {setting: shown}


def test_the_order_of_regions_is_no_difference() -> None:
    assert _differences(NATIVE, {**NATIVE, "regions": ["europe-west4", "europe-west1"]}) == {}


def test_what_is_not_declared_is_no_difference() -> None:
    assert _differences(NATIVE, {}) == {}


def test_labels_of_others_stay() -> None:
    have, place = settings.topic(HERE, _topic(labels={"cost": "7", "team": "web"})), _topic(labels={"team": "shop"})
    made, paths = settings.update(place, {"labels"}, have, settings.topic(HERE, place))
    assert dict(made.labels) == {"cost": "7", "team": "shop"}
    assert paths == ["labels"]


def test_an_update_names_what_differs_and_nothing_else() -> None:
    place = _topic(**NATIVE)
    want = settings.topic(HERE, place)
    _, paths = settings.update(place, {"schema", "regions", "retention"}, want, want)
    assert paths == ["message_retention_duration", "message_storage_policy", "schema_settings"]


def test_when_a_subscription_expires_is_compared_and_can_be_changed() -> None:
    soon, late = (driver.Subscription(_topic(), "tail", expires=days * 86_400.0) for days in (1, 2))
    have, want = settings.subscription(HERE, soon), settings.subscription(HERE, late)
    [change] = settings.differences(late, have, want)
    assert (change.setting, change.have, change.want) == ("expires", "after 86400 s", "after 172800 s")
    assert not change.conflict
    made, paths = settings.update(late, {"expires"}, have, want)
    assert (made.expiration_policy.ttl.ToSeconds(), paths) == (172_800, ["expiration_policy"])


@pytest.mark.parametrize(
    ("asked", "manners", "kept"),
    [
        (14 * 86_400.0, options.SERVICE, 14 * 86_400),
        (60 * 86_400.0, options.SERVICE, 31 * 86_400),
        (14 * 86_400.0, options.EMULATOR, 7 * 86_400),
    ],
)
def test_retention_of_a_subscription(asked: float, manners: options.Manners, kept: int) -> None:
    of = driver.Subscription(_topic(), "billing", retention=asked)
    assert native.retention(of, manners) == kept


def test_commands_and_terraform_have_every_setting_of_a_topic() -> None:
    with connect("gcp://my-project", topics=[Topic("orders", native=NATIVE)]) as broker:
        [line] = broker.topology.export("commands").splitlines()
        terraform = broker.topology.export("terraform")
    assert line == (
        "gcloud pubsub topics create projects/my-project/topics/orders --message-retention-duration=86400s "
        f"--topic-encryption-key={KEY} --message-storage-policy-allowed-regions=europe-west1,europe-west4 "
        f"--schema={SCHEMA} --message-encoding=binary --labels=team=shop"
    )
    for part in (
        'message_storage_policy { allowed_persistence_regions = ["europe-west1", "europe-west4"] }',
        f'schema = "{SCHEMA}"',
        'encoding = "BINARY"',
        f'kms_key_name = "{KEY}"',
        'message_retention_duration = "86400s"',
    ):
        assert part in terraform
