"""The Atom documents of the administration API: entries of entities, feeds of them, and what a client's entry says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloudevents_bridge_contract.emulators.servicebus import rules, sql
from cloudevents_bridge_contract.emulators.servicebus.rules import Rule

ATOM = "{http://www.w3.org/2005/Atom}"
SB = "{http://schemas.microsoft.com/netservices/2010/10/servicebus/connect}"
_COUNTS = "{http://schemas.microsoft.com/netservices/2011/06/servicebus}"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_READ_ONLY = {"CreatedAt", "UpdatedAt", "AccessedAt", "MessageCount", "SizeInBytes", "CountDetails"}
_OWN = {"DefaultRuleDescription", "AuthorizationRules"}
ET.register_namespace("", SB[1:-1])
ET.register_namespace("atom", ATOM[1:-1])
ET.register_namespace("i", _TYPE[1:].partition("}")[0])


def description(body: bytes) -> tuple[str, ET.Element]:
    """The name of what a client describes (`QueueDescription`, …), and its element.

    Raises:
        ValueError: if that is not to be found.
    """
    try:
        found = ET.fromstring(body).find(f"{ATOM}content/*")
    except ET.ParseError as error:
        raise ValueError(f"The request is no XML: {error}.") from error
    if found is None:
        raise ValueError("The entry has no content.")
    return found.tag.removeprefix(SB), found


def texts(element: ET.Element) -> dict[str, str]:
    """The plain values of a description, by name."""
    found = {each.tag.removeprefix(SB): each.text or "" for each in element}
    return {name: text for name, text in found.items() if name not in _READ_ONLY | _OWN}


def rule(element: ET.Element, name: str) -> Rule:
    """A rule from its description.

    Raises:
        ValueError: if its filter or action is none.
    """
    given = element.find(f"{SB}Filter")
    acted = element.find(f"{SB}Action")
    if acted is None:  # the service always answers with one
        acted = ET.Element(f"{SB}Action", {_TYPE: "EmptyRuleAction"})
    kind = "TrueFilter" if given is None else given.get(_TYPE, "TrueFilter").rpartition(":")[2]
    if kind == "CorrelationFilter" and given is not None:
        system = {
            each.tag.removeprefix(SB).lower(): each.text or ""
            for each in given
            if each.tag != f"{SB}Properties" and each.text
        }
        takes = rules.by_correlation(system, _values(given.find(f"{SB}Properties")))
    elif kind in ("SqlFilter", "TrueFilter", "FalseFilter"):
        text = _text(given, "SqlExpression") or ("1=0" if kind == "FalseFilter" else "1=1")
        takes = rules.by_sql(text, _parameters(given))
    else:
        raise ValueError(f"There is no filter of the kind {kind}.")
    action = None
    if statements := _text(acted, "SqlExpression"):
        action = sql.action(statements, _parameters(acted))
    kept = [ET.tostring(each, encoding="unicode") for each in (given, acted) if each is not None]
    return Rule(name, takes, action, "".join(kept))


def entry(
    title: str,
    kind: str,
    values: Mapping[str, str],
    *,
    created: float,
    counts: Mapping[str, int] | None = None,
    inner: str = "",
) -> ET.Element:
    """An entry. `counts`: messages by state; `inner`: elements of the description that are there already."""
    when = _time(created)
    found = ET.Element(f"{ATOM}entry")
    for name, text in (("id", title), ("title", title), ("published", when), ("updated", when)):
        ET.SubElement(found, f"{ATOM}{name}").text = text
    ET.SubElement(found, f"{ATOM}link", rel="self", href=title)
    content = ET.SubElement(found, f"{ATOM}content", type="application/xml")
    described = ET.SubElement(content, f"{SB}{kind}")
    for each in ET.fromstring(f"<all>{inner}</all>"):
        described.append(each)
    for name, text in values.items():
        ET.SubElement(described, f"{SB}{name}").text = text
    for name in ("CreatedAt",) if kind == "RuleDescription" else ("CreatedAt", "UpdatedAt", "AccessedAt"):
        ET.SubElement(described, f"{SB}{name}").text = when
    if counts is not None:
        details = ET.SubElement(described, f"{SB}CountDetails")
        for name, count in counts.items():
            ET.SubElement(details, f"{_COUNTS}{name}").text = str(count)
    return found


def feed(title: str, entries: Iterable[ET.Element], *, onward: str | None = None) -> ET.Element:
    """A page of a list. `onward`: the address of the next one."""
    found = ET.Element(f"{ATOM}feed")
    for name, text in (("id", title), ("title", title), ("updated", _time(0))):
        ET.SubElement(found, f"{ATOM}{name}").text = text
    ET.SubElement(found, f"{ATOM}link", rel="self", href=title)
    if onward is not None:
        ET.SubElement(found, f"{ATOM}link", rel="next", href=onward)
    found.extend(entries)
    return found


def error(status: int, detail: str) -> ET.Element:
    found = ET.Element("Error")
    for name, text in (("Code", str(status)), ("Detail", detail)):
        ET.SubElement(found, name).text = text
    return found


def encoded(element: ET.Element) -> bytes:
    return bytes(ET.tostring(element, encoding="utf-8", xml_declaration=True))


def default_rule(element: ET.Element) -> Rule:
    """The first rule of a new subscription; everything, where its description has none."""
    given = element.find(f"{SB}DefaultRuleDescription")
    if given is None:
        given = ET.Element(f"{SB}RuleDescription")
        ET.SubElement(ET.SubElement(given, f"{SB}Filter", {_TYPE: "TrueFilter"}), f"{SB}SqlExpression").text = "1=1"
    return rule(given, _text(given, "Name") or rules.DEFAULT)


def _parameters(element: ET.Element | None) -> dict[str, Any]:
    return {} if element is None else _values(element.find(f"{SB}Parameters"))


def _values(element: ET.Element | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in () if element is None else element:
        key, value = pair.find(f"{SB}Key"), pair.find(f"{SB}Value")
        if key is None or value is None:
            raise ValueError("A property of a rule lacks its key or value.")
        found[key.text or ""] = _value(value.text or "", value.get(_TYPE, "string").rpartition(":")[2])
    return found


def _value(text: str, kind: str) -> Any:
    if kind in ("int", "long"):
        return int(text)
    if kind == "double":
        return float(text)
    return text == "true" if kind == "boolean" else text


def _text(element: ET.Element | None, name: str) -> str:
    return "" if element is None else element.findtext(f"{SB}{name}") or ""


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
