"""Leases: one owner at a time, taken over from the dead and from nobody else."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from entrob.persistence.leases import Leases


class Clock:
    """A monotonic clock that stands still until it is moved."""

    now = 0.0

    def __call__(self):
        return self.now


def observer(folder, name, clock=None, **settings):
    return Leases(folder, name, clock=clock or Clock(), **settings)


def test_one_of_many_that_ask_at_once_has_it(tmp_path):
    for name in "abcde":
        askers = [observer(tmp_path, f"owner{i}") for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            taken = [lease for lease in pool.map(lambda a, n=name: a.take(n), askers) if lease]
        assert len(taken) == 1
        taken[0].release()
        assert list(tmp_path.iterdir()) == []


def test_it_is_free_again_once_released(tmp_path):
    first, second = observer(tmp_path, "first"), observer(tmp_path, "second")
    with first.holding("work") as lease:
        assert lease and second.take("work") is None and first.take("work") is None
        assert second.take("other").release() is None
    with second.holding("work") as lease:
        assert lease.owner == "second"


def test_who_beats_keeps_it_however_long_it_takes(tmp_path):
    clock = Clock()
    other = observer(tmp_path, "other", clock, patience=1.0)
    with observer(tmp_path, "owner", beat=0.01).holding("work") as lease:
        assert other.take("work") is None
        for _ in range(5):
            time.sleep(0.1)
            clock.now += 100.0
            assert other.take("work") is None
        assert not lease.lost


def test_a_counter_that_stands_still_is_taken_over_after_the_patience(tmp_path):
    clock = Clock()
    observer(tmp_path, "dead", beat=1e6).take("work")
    heir, late = (observer(tmp_path, n, clock, patience=60.0) for n in ("heir", "late"))
    assert heir.take("work") is None  # seen for the first time
    clock.now = 60.0
    assert heir.take("work") is None and late.take("work") is None
    clock.now = 60.5
    lease = heir.take("work")
    assert lease.owner == "heir"
    # To who came late, a new owner's counter is new.
    clock.now = 121.0
    assert late.take("work") is None
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_of_two_heirs_one_inherits(tmp_path):
    clock = Clock()
    for name in "abcde":
        observer(tmp_path, "dead", beat=1e6).take(name)
        heirs = [observer(tmp_path, f"heir{i}", clock) for i in range(8)]
        assert not any(heir.take(name) for heir in heirs)
        clock.now += 61.0
        with ThreadPoolExecutor(8) as pool:
            taken = [lease for lease in pool.map(lambda h, n=name: h.take(n), heirs) if lease]
        assert len(taken) == 1
        taken[0].release()


def test_who_was_only_asleep_learns_that_it_is_lost(tmp_path):
    clock = Clock()
    slow = observer(tmp_path, "slow", beat=0.3).take("work")
    heir = observer(tmp_path, "heir", clock)
    heir.take("work")
    slow._counter = -1  # as if it had slept: its file is as the heir saw it
    clock.now = 61.0
    lease = heir.take("work")
    deadline = time.monotonic() + 20
    while not slow.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    assert slow.lost
    slow.release()
    assert lease.path.exists()  # the heir's lease is its own
    lease.release()


def test_a_damaged_lease_expires_as_any_other(tmp_path):
    clock = Clock()
    (tmp_path / "work.0.lease").write_text("{")
    heir = observer(tmp_path, "heir", clock)
    assert heir.take("work") is None
    clock.now = 61.0
    heir.take("work").release()


HOLD = """
import pathlib, sys, time
from entrob.persistence.leases import Leases
lease = Leases(pathlib.Path(sys.argv[1]), "victim", beat=0.02).take("work")
print("held", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_its_work_to_others(tmp_path):
    heir = Leases(tmp_path, "heir", patience=1e6)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "held\n"
        time.sleep(0.3)
        assert heir.take("work") is None
        victim.kill()
    lease = heir.take("work")  # at once: it can be seen here that it is gone
    assert lease.owner == "heir"
    lease.release()
