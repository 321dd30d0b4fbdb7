"""`ceb emulators`: what runs in the background, and how programs find it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence

from cloudevents_bridge.errors import ErrorCode, make_error
from cloudevents_bridge_contract.emulators import keeper
from cloudevents_bridge_contract.emulators.catalog import CLOUDS, CannotStartError

NAMES = tuple(CLOUDS)


def run(verb: str, clouds: Sequence[str], *, as_json: bool = False) -> int:
    """Do `up`, `down`, `status` or `env` for some clouds, or all. Returns the exit code: 1 where `env` finds nothing
    that runs.

    Raises:
        BridgeError: UNAVAILABLE if one cannot be started or ended.
    """
    code = 0
    for cloud in dict.fromkeys(clouds or NAMES):
        try:
            code |= _one(verb, cloud, as_json=as_json)
        except CannotStartError as error:
            raise make_error(ErrorCode.UNAVAILABLE, f"emulators of {cloud}: {error}", broker=cloud) from error
    return code


def _one(verb: str, cloud: str, *, as_json: bool) -> int:
    if verb == "down":
        ended = keeper.down(cloud)
        _say({"cloud": cloud, "running": False}, [f"{cloud}: {'ended' if ended else 'not running'}"], as_json=as_json)
        return 0
    kept = keeper.up(cloud) if verb == "up" else keeper.find(cloud)
    if kept is None:
        _say({"cloud": cloud, "running": False}, [f"# {cloud}: not running"], as_json=as_json)
        return int(verb == "env")
    value = {"cloud": cloud, "running": True, "pid": kept.pid, "since": kept.since.isoformat()}
    line = f"# {cloud}: running since {kept.since.astimezone():%Y-%m-%d %H:%M:%S}, process {kept.pid}"
    exports = [f"export {name}={shlex.quote(each)}" for name, each in kept.environment.items()]
    if verb == "status":
        exports = []
    _say({**value, "environment": dict(kept.environment)}, [line, *exports], as_json=as_json)
    return 0


def _say(value: object, lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(value) + "\n" if as_json else "".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
