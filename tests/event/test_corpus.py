"""The conformance cases of the JSON format, read where they lie: `CLOUDEVENTS_CORPUS`, or beside the project."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge import CloudEvent, DecodeError
from cloudevents_bridge.formats.json import decode, decode_batch

CORPUS = Path(os.environ.get("CLOUDEVENTS_CORPUS") or Path(__file__).parents[2] / "../shared/corpus").resolve()
FOLDER = next((f for f in (CORPUS / "cloudevents-json", CORPUS) if any(f.glob("*-events.json"))), None)

EXTENSION_TYPES: dict[str, type] = {
    "extinteger": int,
    "extboolean": bool,
    "extstring": str,
    "extbinary": bytes,
    "exttimestamp": datetime,
    "exturi": str,
    "exturiref": str,
}
CORE = ("specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time")
NAMES = (*CORE, "data", "extensions")

MINIMAL: dict[str, Any] = dict.fromkeys(NAMES) | {
    "specversion": "1.0",
    "id": "minimal",
    "source": "https://cloudevents.io",
    "type": "io.cloudevents.test",
    "extensions": {},
}
TIME = datetime(2018, 4, 5, 17, 31, tzinfo=UTC)
SAMPLES: dict[str, dict[str, Any]] = {
    "minimal": {},
    "minimalWithTime": {"id": "minimalWithTime", "time": TIME},
    "minimalWithRelativeSource": {"id": "minimalWithRelativeSource", "source": "#fragment"},
    "allCore": {
        "id": "allCore",
        "datacontenttype": "text/plain",
        "dataschema": "https://cloudevents.io/dataschema",
        "subject": "tests",
        "time": TIME,
    },
    # the corpus' own README says id "simpleData"; the case itself carries this one
    "simpleTextData": {"id": "simpleTextData", "datacontenttype": "text/plain", "data": "Simple text"},
    "allExtensionTypes": {
        "id": "allExtensionTypes",
        "extensions": {
            "extinteger": 10,
            "extboolean": True,
            "extstring": "text",
            "extbinary": b"Ma",
            "exttimestamp": datetime(2023, 3, 31, 15, 12, tzinfo=UTC),
            "exturi": "https://cloudevents.io",
            "exturiref": "//authority/path",
        },
    },
}


def cases(kind: str) -> list[Any]:
    """The cases of one test type; without the corpus, one that is skipped and says why."""
    if FOLDER is None:
        reason = f"the conformance corpus is not at {CORPUS}: set CLOUDEVENTS_CORPUS"
        return [pytest.param(None, id="no-corpus", marks=pytest.mark.skip(reason=reason))]
    files = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    return [pytest.param(case, id=case["id"]) for file in files if file["testType"] == kind for case in file["tests"]]


@pytest.mark.skipif(FOLDER is None, reason=f"the conformance corpus is not at {CORPUS}: set CLOUDEVENTS_CORPUS")
def test_every_case_is_of_a_kind_that_is_run() -> None:
    assert FOLDER is not None
    kinds = {json.loads(path.read_text("utf-8"))["testType"] for path in FOLDER.glob("*.json")}
    assert kinds == {"ValidSingleEvent", "InvalidSingleEvent"}


def check_sample(event: CloudEvent, sample: str) -> None:
    expected = MINIMAL | SAMPLES[sample]
    shown = {name: getattr(event, name) for name in NAMES} | {"extensions": dict(event.extensions)}
    if expected["time"] is not None:
        assert abs(shown["time"] - expected["time"]) < timedelta(milliseconds=1)
        expected["time"] = shown["time"]
    assert shown == expected
    assert {name: type(value) for name, value in shown["extensions"].items()} == {
        name: type(value) for name, value in expected["extensions"].items()
    }


@pytest.mark.parametrize("case", cases("ValidSingleEvent"))
@pytest.mark.parametrize("form", ["str", "bytes", "batch"])
def test_a_valid_event_equals_its_sample(case: dict[str, Any], form: str) -> None:
    types = EXTENSION_TYPES if case.get("sampleExtensionAttributes") else None
    text = json.dumps(case["event"])
    if form == "batch":
        (event,) = decode_batch(f"[{text}]", types=types)
    else:
        event = decode(text if form == "str" else text.encode(), types=types)
    check_sample(event, case["sampleId"])
    check_sample(decode(event.to_json(), types=types), case["sampleId"])


@pytest.mark.parametrize("case", cases("ValidSingleEvent"))
def test_a_valid_event_given_as_a_dict_equals_its_sample(case: dict[str, Any]) -> None:
    event = CloudEvent.from_dict(case["event"])
    assert event == decode(json.dumps(case["event"]))
    # what is not known to the decoder stays a string, and is the same event
    types = EXTENSION_TYPES if case.get("sampleExtensionAttributes") else None
    check_sample(decode(event.to_json(), types=types), case["sampleId"])


@pytest.mark.parametrize("case", cases("InvalidSingleEvent"))
def test_an_invalid_event_is_refused(case: dict[str, Any]) -> None:
    text = json.dumps(case["event"])
    for raw in (text, text.encode()):
        with pytest.raises(DecodeError, match="not a CloudEvent: "):
            decode(raw)
    with pytest.raises(DecodeError, match="event 0 of the batch: "):
        decode_batch(f"[{text}]")
    with pytest.raises(DecodeError):
        CloudEvent.from_dict(case["event"])
