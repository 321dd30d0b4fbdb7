"""What cuts across handlers: functions `(delivery, call_next)` for `Router(middleware=[…])`, outermost first.

One order that works: `[log, timing(), idempotent(store)]`. What is outside sees what is inside: `log` and `timing` also
see the events that `idempotent` does not run.
"""

from cloudevents_bridge.middleware.idempotency import Idempotent, idempotent
from cloudevents_bridge.middleware.logs import log
from cloudevents_bridge.middleware.memory import MemoryStore
from cloudevents_bridge.middleware.sqlite import SQLiteStore
from cloudevents_bridge.middleware.store import Claim, Store
from cloudevents_bridge.middleware.times import timing

__all__ = ["Claim", "Idempotent", "MemoryStore", "SQLiteStore", "Store", "idempotent", "log", "timing"]
