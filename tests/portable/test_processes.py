"""The end of a program, and forks: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
PRELUDE = f"""
import os, sys, threading, time
sys.path.append({HERE!r})
import msgspec
import cloudevents_bridge.broker
from cloudevents_bridge import *
from cloudevents_bridge.driver import Done
from scripted import Scripted, busy, event, refused, until
scripted = Scripted()
def opened(**options):
    cloudevents_bridge.broker.load_adapter = lambda scheme: scripted
    return connect("scripted://here", timeout=5.0, **options)
def say_sent(sent, timeout):
    os.write(1, (" ".join(sent.ids) + "\\n").encode())
    return [Done() for _ in sent.batch]
scripted.on_send = say_sent
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run(program: str) -> subprocess.CompletedProcess[str]:
    # From 3.12 on, Python warns of each fork beside threads: that it goes well is what is tested.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PRELUDE + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("sends", [1, 4])
@pytest.mark.parametrize("linger", [0.0, 3600.0])
def test_a_program_that_ends_sends_what_it_submitted(sends: int, linger: float) -> None:
    done = run(f"""
scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends={sends}, batch_count=2)
publisher = opened().publisher("orders", linger={linger})
for n in range(7):
    publisher.submit(event(str(n)))
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == [str(n) for n in range(7)]


def test_a_program_that_ends_and_cannot_send_says_how_many_were_lost() -> None:
    done = run("""
import cloudevents_bridge.buffer
cloudevents_bridge.buffer.AT_EXIT = 0.2
scripted.on_send = lambda sent, timeout: time.sleep(30)
publisher = opened().publisher("orders", linger=3600.0)
for n in range(7):
    publisher.submit(event(str(n)))
print("the end")
""")
    assert done.returncode == 1
    assert "7 events for topic orders on scripted://here" in done.stderr
    assert done.stdout == "the end\n"


def test_a_program_that_ends_and_is_refused_says_how_many_were_lost() -> None:
    done = run("""
scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
publisher = opened().publisher("orders", linger=3600.0)
for n in range(7):
    publisher.submit(event(str(n)))
""")
    assert done.returncode == 1
    assert "7 events for topic orders on scripted://here" in done.stderr


def test_a_program_that_has_seen_the_failures_ends_well() -> None:
    done = run("""
scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
publisher = opened().publisher("orders")
assert publisher.submit(event()).exception(timeout=5.0) is not None
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_fails_keeps_its_own_exit_code() -> None:
    done = run("""
opened().publisher("orders", linger=3600.0).submit(event("1"))
sys.exit(3)
""")
    assert done.returncode == 3
    assert done.stdout == "1\n"


def test_a_program_may_end_while_it_receives() -> None:
    done = run("""
subscriber = opened().subscriber("orders", "billing")
threading.Thread(target=subscriber.receive, kwargs={"wait": 3600.0}, daemon=True).start()
until(lambda: scripted.receiving)
""")
    assert (done.returncode, done.stderr) == (0, "")


IN_CHILD = """
sys.stdout.flush()
child = os.fork()
if not child:
    code = 1
    try:
        in_child()
        code = 0
    except BaseException as error:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


@forks
def test_the_child_of_a_fork_has_an_empty_buffer_and_its_own_connection() -> None:
    done = run(f"""
broker = opened()
publisher = broker.publisher("orders", linger=3600.0)
publisher.submit(event("parent"))
def in_child():
    assert scripted.calls["connect"] == 1
    publisher.flush(timeout=5.0)
    publisher.publish(event("child"))
    assert scripted.calls["connect"] == 2
    publisher.submit(event("child-2"))
    publisher.close()
    broker.close()
{IN_CHILD}
assert scripted.calls["connect"] == 1
broker.close()
""")
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.split() == ["child", "child-2", "parent"]


@forks
def test_closing_in_the_child_leaves_the_parents_connection() -> None:
    done = run(f"""
broker = opened()
broker.publish("orders", event("1"))
subscriber = broker.subscriber("orders", "billing")
subscriber.receive(wait=0)
def in_child():
    subscriber.close()
    broker.close()
    assert not any(each.closed for each in scripted.opened)
{IN_CHILD}
broker.publish("orders", event("2"))
broker.close()
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "2"]


@forks
@pytest.mark.parametrize(
    "settle",
    ["ack()", "nack()", "nack(delay=5.0)", "dead_letter('no')", "extend(5.0)", "__exit__(None, None, None)"],
)
def test_a_delivery_is_the_parents_to_settle(settle: str) -> None:
    done = run(f"""
from cloudevents_bridge.errors import ClosedError
scripted.put(event("1"))
broker = opened()
[delivery] = broker.subscriber("orders", "billing").receive(wait=0)
def in_child():
    inlet = delivery._inlet
    inlet.guard.acquire()  # as if another thread had held it
    try:
        delivery.{settle}
    except ClosedError as error:
        assert "fork" in str(error)
    else:
        raise AssertionError("settled in the child")
    assert not scripted.settles
{IN_CHILD}
delivery.ack()
assert scripted.verbs() == ["ack"]
broker.close()
""")
    assert done.stderr == ""
    assert done.returncode == 0


@forks
def test_the_child_receives_for_itself_while_the_parent_waits() -> None:
    done = run(f"""
broker = opened()
subscriber = broker.subscriber("orders", "billing")
waiting = threading.Thread(target=subscriber.receive, kwargs=dict(wait=30.0))
waiting.start()
until(lambda: scripted.receiving)
def in_child():
    scripted.changed = threading.Condition()
    scripted.put(event("1"))
    [delivery] = subscriber.receive(wait=5.0)
    delivery.ack()
    assert scripted.calls["connect"] == 2
    broker.close()
{IN_CHILD}
scripted.put(event("2"))
waiting.join(10.0)
assert not waiting.is_alive()
broker.close()
""")
    assert done.stderr == ""
    assert done.returncode == 0


@forks
def test_forks_beside_busy_threads_never_hang() -> None:
    done = run(f"""
broker = connect("memory://", topics=[Topic("orders", subscriptions=["billing"])], create_missing=True)
publisher, subscriber = broker.publisher("orders", linger=0.0), broker.subscriber("orders", "billing")
publisher.publish(event())  # what is imported on first use is imported: a fork in an import hangs any Python program
subscriber.receive()[0].ack()
stop = threading.Event()
def produce():
    while not stop.is_set():
        publisher.submit(event())
        for delivery in subscriber.receive(10, wait=0):
            delivery.ack()
busy_one = threading.Thread(target=produce)
busy_one.start()
def in_child():
    for delivery in subscriber.receive(10, wait=0):
        delivery.ack()
    publisher.submit(event())
    publisher.flush(timeout=10.0)
    broker.close()
for _ in range(20):
    {IN_CHILD.replace(chr(10), chr(10) + "    ")}
stop.set()
busy_one.join()
broker.close()
""")
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timer here")
def test_interrupts_while_receiving_lose_nothing() -> None:
    """Ctrl-C at two hundred random moments of `receive`, while events are published: what was received and not handed
    over goes to the next receive, and what is not settled to the next consumer, at once.
    """
    done = run("""
import random, signal
broker = connect("memory://", topics=[Topic("orders", subscriptions=["billing"])], create_missing=True)
subscriber = broker.subscriber("orders", "billing")
broker.topology.apply()
inside = False
def on_alarm(*_):
    if inside:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, on_alarm)
stop, published = threading.Event(), []
def publish():
    while not stop.is_set():
        published.append(str(len(published)))
        broker.publish("orders", event(published[-1]))
        time.sleep(random.random() * 0.002)
other = threading.Thread(target=publish)
other.start()
seen, interrupted = set(), 0
while interrupted < 200:
    deliveries = []
    signal.setitimer(signal.ITIMER_REAL, 0.0001 + random.random() * 0.002)
    try:
        inside = True
        deliveries = subscriber.receive(3, wait=0.5)
        inside = False
    except KeyboardInterrupt:
        inside = False
        interrupted += 1
    for delivery in deliveries:
        seen.add(delivery.event.id)
        delivery.ack()
stop.set()
other.join()
subscriber.close()
with broker.subscriber("orders", "billing") as fresh:
    while deliveries := fresh.receive(1000, wait=0):
        seen.update(delivery.event.id for delivery in deliveries)
        fresh.ack_many(deliveries)
assert seen == set(published), set(published) - seen
broker.close()
""")
    assert done.stderr == ""
    assert done.returncode == 0


def test_importing_starts_nothing_and_reads_no_clock_library() -> None:
    done = run("""
assert threading.active_count() == 1
broker = opened()
assert threading.active_count() == 1
broker.subscriber("orders", "billing")
broker.publisher("orders")
broker.dead_letters("orders", "billing")
assert threading.active_count() == 1
assert dict(scripted.calls) == {"connect": 1}
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_of_multiprocessing_flushes_at_its_end(tmp_path: Path) -> None:
    program = f"""
import multiprocessing
import cloudevents_bridge as ceb
URL = "sqlite:///{tmp_path}/events.db"
def work():
    broker = ceb.connect(URL)
    broker.publisher("orders", linger=30).submit(ceb.CloudEvent(type="a.b", source="/x", id="1"))
if __name__ == "__main__":
    with ceb.connect(URL) as broker:
        broker.topology.apply(ceb.Topic("orders", subscriptions=["billing"]))
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
        assert len(broker.subscriber("orders", "billing").receive(10, wait=10)) == 2
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    subprocess.run([sys.executable, "-W", "error", str(file)], check=True, timeout=60)
