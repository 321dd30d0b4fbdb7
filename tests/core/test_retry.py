"""The one place that retries, on a clock that only sleeping moves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge.core.retry import Backoff
from cloudevents_bridge.errors import BridgeError, DeadlineExceededError, UnavailableError
from cloudevents_bridge.topics import RetryPolicy


class Time:
    """A clock that sleeping and working move."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Service:
    """Fails with each of `errors` in turn, then succeeds."""

    def __init__(self, time: Time, *errors: BaseException, takes: float = 0.0) -> None:
        self.time, self.errors, self.takes = time, list(errors), takes
        self.left: list[float] = []

    def __call__(self, left: float) -> str:
        self.left.append(left)
        self.time.now += self.takes
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def call(service: Service, timeout: float = 30.0, **policy: float | None) -> str:
    time = service.time
    backoff = Backoff(RetryPolicy(**policy))  # type: ignore[arg-type]
    return backoff.call(service, timeout=timeout, clock=time.clock, sleep=time.sleep)


def busy(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("busy", retryable=True, retry_after=retry_after)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 300), st.floats(0.0, 100.0), st.floats(0.0, 1000.0), st.floats(1.0, 10.0))
def test_full_jitter_within_its_bounds(attempt: int, initial: float, maximum: float, factor: float) -> None:
    policy = RetryPolicy(attempts=None, initial=initial, maximum=maximum, factor=factor)
    delay = Backoff(policy).delay(attempt)
    assert delay is not None
    assert 0.0 <= delay <= min(maximum, initial * factor ** (attempt - 1))


@pytest.mark.parametrize("attempt", [1_000, 100_000, 10**9])
def test_no_attempt_is_too_late_to_be_counted(attempt: int) -> None:
    delay = Backoff(RetryPolicy(attempts=None, maximum=7.0)).delay(attempt)
    assert delay is not None
    assert 0.0 <= delay <= 7.0


def test_the_jitter_is_full() -> None:
    backoff = Backoff(RetryPolicy(initial=1.0, maximum=8.0))
    first = [backoff.jitter(1) for _ in range(2000)]
    late = [backoff.jitter(9) for _ in range(2000)]
    assert min(first) < 0.02
    assert 0.98 < max(first) <= 1.0
    assert 0.45 < sum(first) / len(first) < 0.55
    assert min(late) < 0.2
    assert 7.8 < max(late) <= 8.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 4), st.floats(0.0, 600.0))
def test_the_brokers_wish_is_obeyed(attempt: int, retry_after: float) -> None:
    delay = Backoff(RetryPolicy(initial=0.5, maximum=1.0)).delay(attempt, retry_after)
    assert delay is not None
    assert retry_after <= delay <= max(retry_after, 1.0)


def test_the_attempts_are_counted_with_the_first() -> None:
    backoff = Backoff(RetryPolicy(attempts=3))
    assert backoff.delay(1) is not None
    assert backoff.delay(2) is not None
    assert backoff.delay(3) is None
    assert Backoff(RetryPolicy(attempts=1)).delay(1) is None
    assert Backoff(RetryPolicy(attempts=None)).delay(10_000) is not None
    assert Backoff(RetryPolicy(attempts=1)).jitter(7) >= 0.0


def test_a_call_is_tried_again_until_it_succeeds() -> None:
    time = Time()
    service = Service(time, busy(), busy(2.5))
    assert call(service) == "done"
    assert len(service.left) == 3
    assert len(time.slept) == 2
    assert time.slept[1] >= 2.5
    assert service.left == sorted(service.left, reverse=True)


def test_the_last_error_comes_out_itself() -> None:
    errors = [busy() for _ in range(9)]
    service = Service(Time(), *errors)
    with pytest.raises(UnavailableError) as caught:
        call(service)
    assert caught.value is errors[4]
    assert len(service.left) == 5


@pytest.mark.parametrize("error", [BridgeError("no"), DeadlineExceededError("no"), ValueError(), KeyboardInterrupt()])
def test_what_is_not_said_to_be_retryable_is_not_tried_again(error: BaseException) -> None:
    service = Service(Time(), error)
    with pytest.raises(type(error)) as caught:
        call(service)
    assert caught.value is error
    assert len(service.left) == 1


def test_a_wait_that_would_pass_the_time_limit_is_not_begun() -> None:
    time = Time()
    service = Service(time, busy(31.0))
    with pytest.raises(UnavailableError):
        call(service, timeout=30.0)
    assert time.slept == []


def test_for_ever_is_within_the_time_limit() -> None:
    time = Time()
    service = Service(time, *[busy() for _ in range(10_000)], takes=0.1)
    with pytest.raises(UnavailableError):
        call(service, timeout=30.0, attempts=None)
    assert 60.0 < time.now <= 80.1
    assert all(left >= 0.0 for left in service.left)


def test_without_time_there_is_one_try() -> None:
    service = Service(Time(), busy(), busy())
    with pytest.raises(UnavailableError):
        call(service, timeout=0.0)
    assert service.left == [0.0]


def test_tenacity_is_what_retries_and_is_imported_when_connecting() -> None:
    program = (
        "import sys, cloudevents_bridge\n"
        "from cloudevents_bridge.core.retry import Backoff\n"
        "assert 'tenacity' not in sys.modules\n"
        "backoff = Backoff(cloudevents_bridge.RetryPolicy())\n"
        "assert 'tenacity' in sys.modules\n"
        "assert type(backoff._wait).__module__.startswith('tenacity')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
