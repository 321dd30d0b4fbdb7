"""Where idempotent handling remembers: what a store has to do, whatever database is behind it."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

State: TypeAlias = Literal["claimed", "done", "busy"]


class Claim(NamedTuple):
    """What a store says to a run that wants to begin.

    Attributes:
        state: "claimed": it is yours. "done": it was completed before. "busy": another run has it.
        remaining: seconds until the claim of the other ends by itself, if it is busy and the store can tell.
    """

    state: State
    remaining: float | None = None


class Store(Protocol):
    """Remembers, per key, that a run is going on or was completed.

    Every method is one atomic conditional write on one record, of `key`, `token`, whether it is done, and when it ends.
    A record that has ended counts as absent, and should be removed some time: DynamoDB, Firestore, Cosmos DB and Redis
    do so by themselves. Keys are at most 160 characters of a to z, 0 to 9, `.` and `-`.

    The token, new for each run, fences: a run whose claim has passed to another cannot complete, renew or release the
    other's. Repeating a call whose answer was lost does no harm.

    Any thread may call any method. What it raises, the middleware takes as "the store cannot be used now".
    """

    def claim(self, key: str, token: str, *, lease: float) -> Claim:
        """Write "token has it, for `lease` seconds", if there is no record, or it has ended, or it is this token's and
        not done. Else say what is there.
        """

    def renew(self, key: str, token: str, *, lease: float) -> bool:
        """Let it end `lease` seconds from now, if the record is this token's and not done. False: it is not."""

    def complete(self, key: str, token: str, *, ttl: float) -> bool:
        """Write "done, for `ttl` seconds", if the record is this token's, or there is none. False: another has it."""

    def release(self, key: str, token: str) -> None:
        """Remove the record, if it is this token's and not done."""
