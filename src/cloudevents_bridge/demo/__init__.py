"""The order system of the tutorials, in several processes on the embedded SQLite broker: `ceb demo`."""

from cloudevents_bridge.demo.stage import run

__all__ = ["run"]
