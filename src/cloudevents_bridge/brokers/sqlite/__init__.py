"""The durable embedded broker: one SQLite file, many processes, one machine.

URL. `sqlite:///events.db` is a file in the working directory, `sqlite:////var/lib/app/events.db` an absolute path.
`?synchronous=normal` gives up that an event survives a power cut once publish has returned; the default is `full`.

Names. Topics and subscriptions are named as declared; nothing else is stored beside the file but SQLite's own
`-wal` and `-shm`, which belong to it.

Delivery semantics. At least once. A publish is one transaction, all or nothing, on disk before it returns. Leases,
acks and nacks survive a crash of the program at once, and a power cut as soon as anything was published after them:
what such a cut undoes is delivered again. Times run on a clock that suspend and changes of the wall clock do not touch;
after a reboot leases are void and delays go on by the wall clock. Where the topic is ordered, one delivery of a key is
out at a time; one that waits, for a delay or a retry, holds its own key only. A lease that is over cannot be settled,
even if nobody else took the event. Dead letters are kept until they are settled, however old.

Wire form. Structured JSON.

Limits. 64 MiB an event, 5,000 events or 64 MiB a batch; a million million events a topic. Retention is 14 days.

Permissions. Whoever may write the file and its directory may do everything.

Native access. `native` is the path. Copy a file in use with `sqlite3 FILE ".backup COPY"` or `VACUUM INTO`, and never
open it by other means inside a process that uses it: closing it there would drop SQLite's locks.

Quirks. A network drive will not do. Freed space is used again but not given back to the disk (`VACUUM` does). Up to
10,000 events are kept behind one that stays unfinished. SQLite 3.35 or newer.
"""

from cloudevents_bridge.brokers.sqlite.adapter import adapter

__all__ = ["adapter"]
