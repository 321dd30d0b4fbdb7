"""The one place that retries: how long to wait before the next try, and when to give up. The rules are tenacity's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cloudevents_bridge.errors import BridgeError
from cloudevents_bridge.topics import RetryPolicy

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


class Backoff:
    """A `RetryPolicy` at work: plain decisions for the core, `call` for a single request."""

    def __init__(self, policy: RetryPolicy) -> None:
        # Not with this module: it takes as long to import as all of the core. Not with the first call either: a fork in
        # another thread at that moment would leave the child with Python's import lock held.
        import tenacity

        self.policy = policy
        self._wait: Callable[[Any], float] = tenacity.wait_random_exponential(
            multiplier=policy.initial, max=policy.maximum, exp_base=policy.factor
        )

    def jitter(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th failure (1 = first), with full jitter and no limit of attempts."""
        return self._wait(_Attempt(attempt))

    def delay(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Seconds to wait after the `attempt`-th try failed, at least the broker's `retry_after`; None: give up."""
        if self.policy.attempts is not None and attempt >= self.policy.attempts:
            return None
        return max(self.jitter(attempt), retry_after or 0.0)

    def call(
        self,
        operation: Callable[[float], T],
        *,
        timeout: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Any],
    ) -> T:
        """Run `operation(seconds_left)` until it succeeds, fails for good, or `timeout` seconds are spent.

        Raises:
            BridgeError: the last one. Only those with `.retryable` are tried again.
        """
        deadline = clock() + timeout
        try:
            return operation(timeout)  # nearly always all there is to it, and tenacity costs more than a small request
        except BridgeError as error:
            if not error.retryable:
                raise
            failed: list[BridgeError] = [error]

        import tenacity

        def again() -> T:
            if failed:
                raise failed.pop()  # which counts as the first attempt
            return operation(max(deadline - clock(), 0.0))

        def wait(state: RetryCallState) -> float:
            return self.delay(state.attempt_number, _error(state).retry_after) or 0.0

        def stop(state: RetryCallState) -> bool:
            spent = self.policy.attempts is not None and state.attempt_number >= self.policy.attempts
            return spent or clock() + state.upcoming_sleep >= deadline

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_retryable), wait=wait, stop=stop, sleep=sleep, reraise=True
        )
        return retrying(again)


class _Attempt:
    """All that tenacity's wait strategies read of a call."""

    def __init__(self, number: int) -> None:
        self.attempt_number = number


def _retryable(error: BaseException) -> bool:
    return isinstance(error, BridgeError) and error.retryable


def _error(state: RetryCallState) -> BridgeError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, BridgeError)
    return error
