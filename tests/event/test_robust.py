"""Errors that were once something else than an error of the library, or than a clear one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from cloudevents_bridge import CloudEvent, DecodeError
from cloudevents_bridge.bindings import HTTP, KAFKA
from cloudevents_bridge.errors import InvalidArgumentError

NAMED: dict[str, Any] = {"type": "t", "source": "/s"}
HUGE = 10**5000  # Python refuses to write it in decimals


@pytest.mark.parametrize("name", ["ce-id", "ce-x", "ce-sampledrate", "ce-specversion", "content-type"])
def test_an_integer_that_cannot_be_shown_is_refused_by_a_decoder(name: str) -> None:
    with pytest.raises(DecodeError, match="a int that cannot be shown"):
        HTTP.decode({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", name: HUGE}, b"")


def test_an_integer_that_cannot_be_shown_is_refused_by_the_constructor() -> None:
    arguments: list[dict[str, Any]] = [{"extensions": {"x": HUGE}}, {"id": HUGE}, {"extensions": {HUGE: 1}}]
    for changed in arguments:
        with pytest.raises(InvalidArgumentError, match="cannot be shown"):
            CloudEvent(**NAMED, **changed)


def test_names_of_attributes_that_are_no_strings_are_none_of_an_event() -> None:
    attributes: dict[Any, Any] = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}
    for name in (1, None, b"ce_x", ("ce_x",)):
        assert KAFKA.decode(attributes | {name: "x"}, b"") == KAFKA.decode(attributes, b"")


def test_a_text_that_its_charset_reads_and_cannot_write_goes_out_as_bytes() -> None:
    event = CloudEvent(**NAMED, data=b"\x1b\x80", datacontenttype="text/plain; charset=iso-2022-jp")
    assert b'"data_base64":"G4A="' in event.to_json()
    assert CloudEvent.from_json(event.to_json()) == event


def test_a_byte_order_mark_before_json_is_skipped_by_data_and_data_as_alike() -> None:
    event = CloudEvent(**NAMED, data=b'\xef\xbb\xbf{"a":1}', datacontenttype="application/json")
    assert event.data == event.data_as(dict) == event.data_as(dict[str, int]) == {"a": 1}
    assert event.data_bytes == b'\xef\xbb\xbf{"a":1}'


def test_another_version_is_named_before_what_is_wrong_under_this_one() -> None:
    with pytest.raises(DecodeError, match=r"attribute specversion is '0\.3': it must be '1\.0'"):
        CloudEvent.from_json(b'{"id":1,"nested":{"a":1},"specversion":"0.3","type":"","source":"not a URI"}')


def test_an_event_without_time_has_none_in_the_sdk() -> None:
    pytest.importorskip("cloudevents.core", reason="the CNCF SDK 2 is not installed")
    assert CloudEvent(**NAMED, time=None).to_sdk().get_time() is None


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:60.5-23:59"])
def test_times_beyond_the_calendar_in_utc_compare(time: str) -> None:
    raw = '{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"%s"}'
    event = CloudEvent.from_json(raw % time)
    assert event == CloudEvent.from_json(event.to_json())
    assert event == CloudEvent.from_json(raw % time.replace(":00+", ":00.000+").replace("60.5-", "60.50-"))
    assert event != event.replace(time=None)


@pytest.mark.parametrize(
    "data", [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b"[1,]", b"NaN", b"", b" ", b"1 2", b"\x00"]
)
def test_bytes_that_are_no_json_go_out_as_bytes_whatever_their_type_says(data: bytes) -> None:
    event = CloudEvent(**NAMED, data=data, datacontenttype="application/json")
    assert b'"data_base64":' in event.to_json()
    again = CloudEvent.from_json(event.to_json())
    assert again == event
    assert again.data_bytes == data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_draws_other_ids() -> None:
    code = (
        "import os\n"
        "from cloudevents_bridge import CloudEvent\n"
        "ids = lambda: '\\n'.join(CloudEvent(type='t', source='/s').id for _ in range(100))\n"
        "ids()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os.waitpid(child, 0)\n"
        "print(ids(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    ids = done.stdout.split()
    assert len(set(ids)) == len(ids) == 200


def test_a_body_that_changes_later_does_not_change_the_event() -> None:
    body: Any = bytearray(b"abc")
    events = [HTTP.decode({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}, body)]
    encoded: Any = bytearray(CloudEvent(**NAMED, data="abc").to_json())
    events += [CloudEvent.from_json(encoded), CloudEvent.from_json(memoryview(encoded))]  # type: ignore[arg-type]
    body[:], encoded[:] = b"xyz", b"x" * len(encoded)
    assert [event.data_bytes for event in events] == [b"abc", b'"abc"', b'"abc"']
