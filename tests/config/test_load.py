from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge.config import Settings, load, parse_duration, profiles
from cloudevents_bridge.errors import ConfigurationError, ErrorCode, UnsupportedError
from cloudevents_bridge.topics import RetryPolicy, Subscription, Topic

URL, PROFILE, CONFIG = (f"CLOUDEVENTS_BRIDGE_{each}" for each in ("URL", "PROFILE", "CONFIG"))

DOCUMENTED = """
default = "local"
requires = ["ordering"]
[topics.orders]
ordered = true
[topics.orders.subscriptions.billing]
max_attempts = 7
lease = "90s"
redelivery = { initial = "2s", maximum = "5m" }
filter = "type LIKE 'com.example.order.%'"
[profiles.local]
url = "memory://local"
create_missing = true
[profiles.ci]
url = "aws://us-east-1"
endpoint = "${CEB_AWS_ENDPOINT}"
create_missing = true
[profiles.staging]
url = "gcp://${GCP_PROJECT}"
retry = { attempts = 3, initial = "200ms", maximum = "20s" }
timeout = "1m"
telemetry = false
requires = ["delay", "ordering"]
[profiles.prod]
url = "aws://eu-west-1?account=123456789012"
options = { max_pool_connections = 50 }
[profiles.prod.topics.orders]
native = { name = "arn:aws:sns:eu-west-1:123456789012:orders-v2.fifo", kms_key = "alias/orders" }
subscriptions.billing.native = { queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/billing.fifo" }
[profiles.migration]
publish = ["staging", "prod"]
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "bridge.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def loads(tmp_path: Path) -> Callable[..., Settings]:
    def _load(url: str | None = None, environ: dict[str, str] | None = None, **kwargs: Any) -> Settings:
        return load(url, environ=environ or {}, cwd=kwargs.pop("cwd", tmp_path), **kwargs)

    return _load


Loads = Callable[..., Settings]


def error_of(loads: Loads, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loads(*args, **kwargs)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWhichBroker:
    def test_nothing_configured_shows_the_line_to_write(self, loads: Loads) -> None:
        assert 'export CLOUDEVENTS_BRIDGE_URL="sqlite:///events.db"' in error_of(loads)

    def test_each_source_gives_way_to_the_one_before(self, loads: Loads, write: Write) -> None:
        write(
            'default = "a"\n'
            + "".join(f'[profiles.{name}]\nurl = "memory://{name}"\n' for name in ("a", "by-variable", "by-argument"))
        )
        environ: dict[str, str] = {}
        assert loads().url.authority == "a"
        environ[PROFILE] = "by-variable"
        assert loads(environ=environ).url.authority == "by-variable"
        environ[URL] = "memory://url-variable"
        assert loads(environ=environ).url.authority == "url-variable"
        assert loads(environ=environ).profile is None
        assert loads(environ=environ, profile="by-argument").url.authority == "by-argument"
        assert loads("memory://url", environ=environ, profile="by-argument").url.authority == "url"

    def test_a_bare_url_keeps_topics_and_requires(self, loads: Loads, write: Write) -> None:
        write(DOCUMENTED)
        settings = loads("memory://x")
        assert [topic.name for topic in settings.topics] == ["orders"]
        assert settings.requires == ("ordering",)
        assert settings.create_missing is False

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('[profiles.local]\nurl="memory://"', 'write default = "local"'),
            ("[topics.orders]", "has no profile; write profiles.local.url"),
            ('default="prod"\n[profiles.local]\nurl="memory://"', "has no profile 'prod'"),
            ('default="locla"\n[profiles.local]\nurl="memory://"', "did you mean local? known: local"),
            ('default="local"\n[profiles.local]\ncreate_missing=true', "profiles.local has no url"),
        ],
    )
    def test_a_file_that_does_not_say_which(self, loads: Loads, write: Write, text: str, says: str) -> None:
        path = write(text)
        message = error_of(loads)
        assert says in message
        assert str(path) in message

    def test_a_profile_without_a_file(self, loads: Loads) -> None:
        assert "there is no bridge.toml here or in a folder above" in error_of(loads, profile="prod")

    @pytest.mark.parametrize("name", [URL, PROFILE, CONFIG])
    def test_an_empty_variable_is_not_taken_for_unset(self, loads: Loads, write: Write, name: str) -> None:
        write('default="local"\n[profiles.local]\nurl="memory://"')
        assert f"{name} is set but empty" in error_of(loads, environ={name: ""})

    def test_a_wrong_url_names_where_it_came_from(self, loads: Loads, write: Write) -> None:
        path = write('default="local"\n[profiles.local]\nurl="amqp://me:hunter2@host"')
        message = error_of(loads)
        assert message.startswith(f"{path}: profiles.local.url: ")
        assert "hunter2" not in message
        assert error_of(loads, environ={URL: "nonsense"}).startswith(f"{URL}: ")

    def test_migration_profiles_are_said_to_come_later(self, loads: Loads, write: Write) -> None:
        write(DOCUMENTED)
        with pytest.raises(
            UnsupportedError, match=r"profiles\.migration\.publish is not supported yet by this version"
        ):
            loads(profile="migration")

    def test_profiles(self, write: Write, tmp_path: Path) -> None:
        assert profiles(environ={}, cwd=tmp_path) == ()
        write(DOCUMENTED)
        assert profiles(environ={}, cwd=tmp_path) == ("local", "ci", "staging", "prod", "migration")


class TestFinding:
    def test_upwards_from_the_working_directory(self, loads: Loads, write: Write, tmp_path: Path) -> None:
        path = write(DOCUMENTED)
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        assert loads(cwd=deep).file == path

    def test_the_argument_then_the_variable_then_the_search(self, loads: Loads, write: Write, tmp_path: Path) -> None:
        write(DOCUMENTED)
        for name in ("one", "two"):
            (tmp_path / f"{name}.toml").write_text(f'default="p"\n[profiles.p]\nurl="memory://{name}"')
        environ = {CONFIG: "two.toml"}
        assert loads(environ=environ).url.authority == "two"
        assert loads(environ=environ, config="one.toml").url.authority == "one"
        assert loads(environ=environ, config=tmp_path / "one.toml").url.authority == "one"

    def test_a_named_file_must_exist(self, loads: Loads, tmp_path: Path) -> None:
        assert "named by config, is no file" in error_of(loads, config="nope.toml")
        assert f"named by {CONFIG}, is no file" in error_of(loads, environ={CONFIG: str(tmp_path)})
        assert "is no file" in error_of(loads, config="a\x00b")

    def test_a_relative_sqlite_path_is_beside_the_file(self, loads: Loads, write: Write, tmp_path: Path) -> None:
        write('default="local"\n[profiles.local]\nurl="sqlite:///data/my%20events.db?x=1"')
        deep = tmp_path / "deep"
        deep.mkdir()
        url = loads(cwd=deep).url
        assert url.path == f"/{tmp_path}/data/my events.db"
        assert dict(url.query) == {"x": "1"}
        assert loads("sqlite:///data/events.db", cwd=deep).url.path == "/data/events.db"

    @pytest.mark.parametrize("url", ["sqlite:////var/x.db", "sqlite:///:memory:", "sqlite://", "memory://x"])
    def test_other_urls_stay_as_they_are(self, loads: Loads, write: Write, url: str) -> None:
        write(f'default="local"\n[profiles.local]\nurl="{url}"')
        assert loads().url.text == url

    def test_a_folder_with_odd_characters(self, tmp_path: Path) -> None:
        folder = tmp_path / "50% #1? é"
        folder.mkdir()
        (folder / "bridge.toml").write_text('default="p"\n[profiles.p]\nurl="sqlite:///e.db"')
        assert load(environ={}, cwd=folder).url.path == f"/{folder}/e.db"


class TestValues:
    def test_the_documented_file(self, loads: Loads, write: Write) -> None:
        path = write(DOCUMENTED)
        local = loads()
        assert (local.profile, local.create_missing, local.timeout, local.retry) == ("local", True, None, None)
        assert local.topics == (
            Topic(
                "orders",
                ordered=True,
                subscriptions=[
                    Subscription(
                        "billing",
                        max_attempts=7,
                        lease=90.0,
                        redelivery=RetryPolicy(attempts=None, initial=2.0, maximum=300.0),
                        filter="type LIKE 'com.example.order.%'",
                    )
                ],
            ),
        )
        assert local.origins["url"] == f"{path}: profiles.local.url"
        assert local.origins["profile"] == f"{path}: default"
        assert local.origins["topics.orders"] == f"{path}: topics"
        staging = loads(profile="staging", environ={"GCP_PROJECT": "my-project"})
        assert staging.url.authority == "my-project"
        assert staging.retry == RetryPolicy(attempts=3, initial=0.2, maximum=20.0)
        assert (staging.timeout, staging.telemetry, staging.requires) == (60.0, False, ("ordering", "delay"))
        prod = loads(profile="prod")
        assert dict(prod.options) == {"max_pool_connections": 50}
        assert prod.topics[0].native["kms_key"] == "alias/orders"
        assert prod.topics[0].ordered
        assert prod.topics[0].subscriptions[0].native["queue"].endswith("billing.fifo")
        assert prod.topics[0].subscriptions[0].max_attempts == 7
        ci = loads(profile="ci", environ={"CEB_AWS_ENDPOINT": "http://localhost:4566"})
        assert dict(ci.options) == {"endpoint": "http://localhost:4566"}

    def test_an_unset_variable_names_itself_and_the_key(self, loads: Loads, write: Write) -> None:
        path = write(DOCUMENTED)
        message = error_of(loads, profile="ci")
        assert message == (
            f"{path}: profiles.ci.endpoint needs the environment variable CEB_AWS_ENDPOINT, which is not set: set it"
        )

    def test_variables_of_other_profiles_need_not_be_set(self, loads: Loads, write: Write) -> None:
        write(DOCUMENTED)
        assert loads(profile="local").url.authority == "local"

    def test_dollar_signs(self, loads: Loads, write: Write) -> None:
        write('default="p"\n[profiles.p]\nurl="memory://"\noptions = { a = "$HOME $${HOME} ${HOME}", b = ["${HOME}"] }')
        assert dict(loads(environ={"HOME": "/h"}).options) == {"a": "$HOME ${HOME} /h", "b": ["/h"]}

    def test_the_programs_topics_are_the_lowest_layer(self, loads: Loads, write: Write) -> None:
        write('[topics.orders.subscriptions.billing]\nlease = 5\n[topics.invoices]\nsubscriptions = ["audit"]')
        declared = Topic("orders", ordered=True, subscriptions=[Subscription("billing", max_attempts=9), "stock"])
        orders, invoices = loads("memory://", topics=[declared]).topics
        assert orders.ordered
        assert [(s.name, s.max_attempts, s.lease) for s in orders.subscriptions] == [
            ("billing", 9, 5.0),
            ("stock", 5, 60.0),
        ]
        assert [s.name for s in invoices.subscriptions] == ["audit"]
        assert declared.subscriptions[0].lease == 60.0

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("[profile.local]", "profile is no key of bridge.toml; did you mean profiles?"),
            ('requires = ["ordring"]', "names 'ordring', which is no capability; did you mean ordering?"),
            ('requires = "ordering"', "requires is 'ordering': it must be a list of strings"),
            ("requires = [1]", "it must be a list of strings"),
            ("topics = 1", "topics is 1: it must be a table"),
            ("[topics.Orders]", "topics.Orders: topic name 'Orders' is not portable"),
            ('[topics."a.b"]', "topics.'a.b': topic name 'a.b' is not portable"),
            ("[topics.orders]\nordred = true", "topics.orders.ordred is no key of bridge.toml; did you mean ordered?"),
            ('[topics.orders]\nordered = "yes"', "topics.orders.ordered is 'yes': it must be true or false"),
            ("[topics.orders]\nsubscriptions = 3", "topics.orders.subscriptions is 3: it must be a table"),
            ('[topics.orders]\nsubscriptions = ["aaa", "aaa"]', "names 'aaa' twice"),
            ("[topics.orders.subscriptions.billing]\nmax_attempts = 0", "max_attempts of subscription billing is 0"),
            ("[topics.orders.subscriptions.billing]\nmax_attempts = 1.5", "billing.max_attempts is 1.5"),
            ("[topics.orders.subscriptions.billing]\nmax_attempts = true", "billing.max_attempts is true"),
            ('[topics.orders.subscriptions.billing]\nlease = "60x"', "billing.lease is '60x': use seconds, or"),
            ("[topics.orders.subscriptions.billing]\nlease = 0", "lease of subscription billing"),
            ("[topics.orders.subscriptions.billing]\nlease = inf", "billing.lease is inf"),
            ("[topics.orders.subscriptions.billing]\nlease = -1", "billing.lease is -1"),
            ("[topics.orders.subscriptions.billing]\nlease = 2020-01-01", "billing.lease is a date"),
            ("[topics.orders.subscriptions.billing]\nfilter = ''", "billing.filter is empty"),
            ("[topics.orders.subscriptions.billing.redelivery]\nattempts = 3", "redelivery.attempts is no key"),
            ("[topics.orders.subscriptions.billing.redelivery]\nfactor = 0.5", "redelivery: retry factor is 0.5"),
            ("[profiles]\np = 1", "profiles.p is 1: it must be a table, [profiles.p]"),
            ("[profiles.p]\nurl = 1", "profiles.p.url is 1: it must be a string"),
            ("[profiles.p]\nurl = ''", "profiles.p.url is empty"),
            ("[profiles.p]\nurl = '${}'", "without a variable's name"),
            ("[profiles.p]\nurl = '${A'", "without a variable's name"),
            (
                "[profiles.p]\nurl = 'memory://'\nuri = 'x'",
                "profiles.p.uri is no key of bridge.toml; did you mean url?",
            ),
            ("[profiles.p]\nurl = 'memory://'\ntimeout = 0", "profiles.p.timeout is 0"),
            ("[profiles.p]\nurl = 'memory://'\nretry = 5", "profiles.p.retry is 5: it must be a table"),
            ("[profiles.p]\nurl = 'memory://'\nretry = {attempts = 0}", "profiles.p.retry: retry attempts is 0"),
            ("[profiles.p]\nurl = 'memory://'\nretry = {tries = 2}", "profiles.p.retry.tries is no key"),
            (
                "[profiles.p]\nurl = 'memory://'\ncreate_missing = 'true'",
                "create_missing is 'true': it must be true or",
            ),
            ("[profiles.p]\nurl = 'memory://'\noptions = []", "profiles.p.options is a list: it must be a table"),
            (
                "[profiles.p]\nurl = 'memory://'\nendpoint = 'x'\noptions = {endpoint = 'y'}",
                "endpoint is also given in options",
            ),
            ("[profiles.p]\nurl = 'memory://'\nendpoint = 'http://me:hunter2@h'", "endpoint holds a user or password"),
            (
                "[profiles.p]\nurl = 'memory://'\n[profiles.p.topics.orders]\nlease=1",
                "profiles.p.topics.orders.lease is no",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, loads: Loads, write: Write, line: str, says: str) -> None:
        path = write(line if "[profiles" in line else f'{line}\n[profiles.p]\nurl = "memory://"')
        message = error_of(loads, profile="p")
        assert says in message
        assert message.startswith(f"{path}: ")
        assert "hunter2" not in message


class TestTheFileItself:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"default = ", "is not valid TOML: Invalid value (at "),
            (b"a = 1\na = 2", "is not valid TOML"),
            (b"\xff\xfe", "byte 0 is not UTF-8"),
            (b"a = " + b"[" * 100_000, "nested too deeply"),
            (b"a = " + b"9" * 10_000, "is not valid TOML"),
        ],
    )
    def test_unreadable(self, loads: Loads, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "bridge.toml"
        path.write_bytes(content)
        message = error_of(loads, "memory://")
        assert message.startswith(f"{path}: ")
        assert says in message

    def test_a_byte_order_mark_does_no_harm(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / "bridge.toml").write_bytes(b'\xef\xbb\xbfdefault = "p"\n[profiles.p]\nurl = "memory://b"')
        assert loads().url.authority == "b"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("60s", 60.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("20", 20.0),
        (20, 20.0),
        (0.5, 0.5),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["", "s", "5 m", "1d", "-1s", "1e3", "nan", True, None, -1, float("nan"), float("inf"), 10**400, "9" * 400, "٣s"],
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ConfigurationError, match="is no duration: use seconds"):
        parse_duration(value)


FILE_KEYS = ["default", "requires", "topics", "profiles"]
PROFILE_KEYS = ["url", "endpoint", "create_missing", "retry", "timeout", "telemetry", "options", "publish", "spool"]
TOPIC_KEYS = [
    "ordered",
    "native",
    "subscriptions",
    "max_attempts",
    "lease",
    "redelivery",
    "filter",
    "attempts",
    "initial",
]
KEYS = st.sampled_from(
    [*FILE_KEYS, *PROFILE_KEYS, *TOPIC_KEYS, "orders", "billing", "maximum", "factor", "p", "x", "é"]
)
SCALARS = (
    st.booleans()
    | st.integers(-5, 10**20)
    | st.floats()
    | st.sampled_from(
        ["", "60s", "5m", "x", "memory://", "amqp://me:hunter2@h", "${HOME}", "${", "ordering", "p", "a\nb"]
    )
    | st.dates()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.dictionaries(KEYS, VALUES, max_size=4),
)
def test_any_file_gives_settings_or_one_error(
    whole: dict[str, object], profile: dict[str, object], topic: dict[str, object]
) -> None:
    whole = {"default": "p", "profiles": {"p": {"url": "memory://", **profile}}, "topics": {"orders": topic}, **whole}
    text = "\n".join(f"{json.dumps(key)} = {as_toml(value)}" for key, value in whole.items())
    with TemporaryDirectory() as folder:
        Path(folder, "bridge.toml").write_text(text, encoding="utf-8")
        try:
            load(environ={"HOME": "/h"}, cwd=folder)
        except (ConfigurationError, UnsupportedError) as error:
            message = str(error)
        else:
            message = ""
    assert "\n" not in message
