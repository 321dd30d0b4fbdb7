"""Emulators in the background: which of AWS's is taken, and that its environment leads programs to it."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from cloudevents_bridge import CloudEvent, Topic, connect
from cloudevents_bridge_contract import aws
from cloudevents_bridge_contract.emulators.catalog import CLOUDS, CannotStartError
from cloudevents_bridge_contract.emulators.venvs import LOCALSTACK, MINISTACK, NotInstalledError, Recipe


def only(monkeypatch: pytest.MonkeyPatch, folder: Path, *recipes: Recipe) -> None:
    """A machine that has these emulators, of those that there are here."""
    for recipe in recipes:
        try:
            recipe.python()
        except NotInstalledError as missing:
            pytest.skip(f"not run: {missing}")
        (folder / recipe.name).symlink_to(recipe.place)
    monkeypatch.setenv("CLOUDEVENTS_BRIDGE_EMULATORS", str(folder))
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("recipes", "path"),
    [
        pytest.param((LOCALSTACK, MINISTACK), "/_localstack/health", id="localstack"),
        pytest.param((MINISTACK,), "/_ministack/health", id="ministack"),
    ],
)
def test_the_environment_leads_programs_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipes: tuple[Recipe, ...], path: str
) -> None:
    from urllib.request import urlopen

    only(monkeypatch, tmp_path, *recipes)
    with CLOUDS["aws"]() as environment:
        assert dict(environment) == {
            "AWS_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"],
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
        assert urlopen(environment["AWS_ENDPOINT_URL"] + path, timeout=10).status == 200, "it is another one"
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        topic = Topic(f"led-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])
        with connect("aws://eu-west-1", topics=[topic], create_missing=True, poll=1) as broker:
            broker.publish(topic.name, sent := CloudEvent(type="t", source="/s"))
            with broker.subscriber(topic.name, "reader") as subscriber:
                [delivery] = subscriber.receive(1, wait=20)
                assert delivery.event.id == sent.id
                delivery.ack()


def test_none_of_them_is_said_with_what_brings_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only(monkeypatch, tmp_path)
    with pytest.raises(CannotStartError) as caught, CLOUDS["aws"]():
        pass
    assert f"{LOCALSTACK.line}; or ministack is not installed; to get it: {MINISTACK.line}" in str(caught.value)


def test_the_suite_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        server = socket.create_server(("127.0.0.2", 0))
    except OSError as error:
        pytest.skip(f"not run: there is no second address here: {error}")
    with server:
        server.settimeout(20)
        monkeypatch.setenv(aws.ENDPOINT_VARIABLE, f"http://127.0.0.2:{server.getsockname()[1]}")
        rig = aws.ministack()
        with rig.start() as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(b"hello")
            answered, _ = server.accept()
            with answered:
                assert answered.recv(5) == b"hello"
        assert rig.kind == f"emulator at 127.0.0.2:{server.getsockname()[1]}"
