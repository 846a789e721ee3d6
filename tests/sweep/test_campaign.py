"""The fault campaign: whatever happens to a run, its records end with the same bits.

Each test prints how much happened (``-s`` shows it).
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from entrob.persistence import leases
from entrob.persistence.store import DRAWN, RECORDS, Store
from entrob.sweep import measure, runner, worker

pytestmark = pytest.mark.slow

DRIVER = pathlib.Path(__file__).with_name("driver.py")
#: By command, and as many of two workers.
KILLS, FULL = 10, 3
#: Failures of power in one process, which compiles nothing again.
FAILURES = 60
#: Cut into batches, with snapshots, and a grid to be tuned.
MORE = """
[tune]
seeds = 2

[tune.grids.policy_entropy]
values = [0.1, 10.0]
"""


class Campaign:
    """Commands in processes of their own, on an experiment that is tiny."""

    def __init__(self, tiny_file, cache, folder):
        self.file, self.folder, self.cache = folder / "tiny.toml", folder, cache
        text = tiny_file.read_text().replace("points = 5", "points = 5\nsnapshots = 2", 1)
        text = text.replace("frames = 160", "frames = 480")
        self.file.write_text(text + MORE)

    def begin(self, what, when, *arguments):
        """A process in which something happens, see `driver`."""
        own = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        own.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
        arguments = map(str, (sys.executable, DRIVER, what, when, *arguments))
        return subprocess.Popen(
            list(arguments), env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def start(self, what, when, command, out):
        """``(exit status, what it complained of)``."""
        process = self.begin(what, when, command, *self.arguments(out))
        error = process.communicate()[1]
        return process.returncode, error

    def arguments(self, out):
        return self.file, "--out", out, "--parallel-runs", "2"

    def undisturbed(self, command):
        """The folder of a command that nothing happens to, and how many writes it takes."""
        out, count = self.folder / f"clean-{command}", self.folder / f"count-{command}"
        status, error = self.start("count", count, command, out)
        assert status == 0, error
        return out, int(count.read_text())


@pytest.fixture(scope="module")
def campaign(tiny_file, cache, tmp_path_factory):
    return Campaign(tiny_file, cache, tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module", params=["run", "tune"])
def clean(campaign, request):
    """A command, the folder that it makes undisturbed, and the number of its writes."""
    return request.param, *campaign.undisturbed(request.param)


def records(root):
    """All that is measured, by name: not what it took, nor who was to do it."""
    timed = {"manifest.json", "report.md", "tuned.json", "plan.json", ".lock"}
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in timed)
    files = (p for p in files if p.parent.name not in ("plan", "leases"))
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in files
        if not p.name.startswith("cost-") and not p.name.endswith(".tmp")
    }


def test_kills_leave_no_trace(campaign, clean, tmp_path):
    """At random writes of training, testing, tuning, gathering and drawing, in a row."""
    command, wanted, writes = clean
    draw, out, kills, rounds = random.Random(15), tmp_path / "out", 0, 0
    while kills < KILLS:
        status, error = campaign.start("kill", draw.randint(1, writes // 2), command, out)
        if status == 0:  # it had less to do than that
            assert records(out) == records(wanted)
            rounds += 1
            shutil.rmtree(out)
            continue
        assert status == -signal.SIGKILL, error
        kills += 1
    status, error = campaign.start("count", tmp_path / "count", command, out)
    assert status == 0, error
    assert records(out) == records(wanted)
    print(f"{command}: {kills} kills, {writes} writes, {rounds + 1} times to the end")


def test_kills_of_two_workers_leave_no_trace(campaign, tmp_path):
    """Whichever is killed is begun again, beside the other."""
    wanted, _ = campaign.undisturbed("run")
    draw, out, kills, rounds = random.Random(19), tmp_path / "out", 0, 0

    def worker():
        what = "kill" if kills < KILLS else "count"
        when = draw.randint(1, 40) if what == "kill" else tmp_path / f"count-{draw.random()}"
        return campaign.begin(what, when, "work", out)

    while kills < KILLS:
        assert campaign.start("count", tmp_path / "planned", "plan", out)[0] == 0
        workers = [worker(), worker()]
        while workers:
            ended = next((w for w in workers if w.poll() is not None), None)
            if ended is None:
                time.sleep(0.1)
                continue
            workers.remove(ended)
            if ended.returncode == -signal.SIGKILL:
                kills += 1
                workers.append(worker())
            else:
                assert ended.returncode == 0, ended.stderr.read()
        process = campaign.begin("count", tmp_path / "gathered", "gather", out)
        assert process.wait() == 0
        assert records(out) == records(wanted)
        rounds += 1
        shutil.rmtree(out)
    print(f"two workers: {kills} kills, {rounds} times to the end")


def test_a_full_disk_is_one_line_and_room_ends_it(campaign, clean, tmp_path):
    command, wanted, writes = clean
    draw = random.Random(16)
    for _ in range(FULL):
        out = tmp_path / "out"
        status, error = campaign.start("full", draw.randint(1, writes), command, out)
        assert status == 2 and "the disk is full" in error.splitlines()[-1]
        assert not list(out.rglob("*.tmp"))
        assert campaign.start("count", tmp_path / "count", command, out)[0] == 0
        assert records(out) == records(wanted)
        shutil.rmtree(out)


class PowerFailure(BaseException):
    """Nothing reaches the disk any more; nobody catches it."""


@pytest.fixture
def power(monkeypatch):
    """Function ``(step, call) -> whether power failed`` at that step of what a call writes."""

    def fails_at(step, call):
        steps = 0

        def watched(real, cleans=False):
            def replaced(*args, **kwargs):
                nonlocal steps
                # Cleaning up is no step, and is not done by the dead.
                steps += not cleans
                if steps >= step:
                    raise PowerFailure
                return real(*args, **kwargs)

            return replaced

        with monkeypatch.context() as patch:
            # In a thread of its own a lease is kept alive, as a process does that is not dead.
            patch.setattr(leases.Lease, "_live", lambda self: self._done.wait())
            for name in ("fsync", "replace"):
                patch.setattr(os, name, watched(getattr(os, name)))
            patch.setattr(os, "unlink", watched(os.unlink, cleans=True))
            try:
                call()
            except PowerFailure:
                return True
            return False

    # The process whose lease is found is dead, though it has our number.
    monkeypatch.setattr(leases, "_alive", lambda process: False)
    return fails_at


def test_failures_of_power_leave_no_trace(tiny, whole, tmp_path, power, monkeypatch, parts, capsys):
    """At random writes of training, testing and gathering, in a row: whatever is half-written."""
    trainers, tester = {}, measure.Tester(tiny)
    monkeypatch.setattr(worker, "Tester", lambda experiment: tester)
    draw, out, failures, ends, steps = random.Random(18), tmp_path / "out", 0, 0, 60
    work = lambda: runner.run(tiny, Store(out), "again", trainers=trainers)

    def ended():
        left = {n: b for n, b in parts(out).items() if not n.endswith(".tmp")}
        assert left == parts(whole)
        for kind in RECORDS:
            path = out / f"{kind}.parquet"
            assert path.exists() == (whole / path.name).exists()
            assert not path.exists() or path.read_bytes() == (whole / path.name).read_bytes()
        assert Store(out).manifest()["frames"] == 640

    while failures < FAILURES:
        if power(draw.randint(1, steps), work):
            failures += 1
        else:
            ended()
            ends += 1
            shutil.rmtree(out)
    work()
    ended()
    with capsys.disabled():
        print(f"{failures} failures of power, {ends + 1} times to the end")


def kinds(root):
    """One file of every kind in a folder."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size):
        name = path.name.partition("-")[0] if path.parent.name == "parts" else path.name
        key = path.suffix if path.parent.name in ("tables", "figures") else name
        found.setdefault(key, path)
    return found.values()


def test_a_flipped_bit_in_every_kind_of_file_is_named_and_mended(campaign, clean, tmp_path):
    command, wanted, _ = clean
    draw, mended = random.Random(17), []
    for path in kinds(wanted):
        out = shutil.copytree(wanted, tmp_path / "out")
        harmed = out / path.relative_to(wanted)
        data = bytearray(harmed.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        harmed.write_bytes(data)
        status, error = campaign.start("count", tmp_path / "count", command, out)
        assert status == 0, (path, error)
        found, undamaged = records(out), records(wanted)
        if path.name.startswith("snapshot"):  # tested already, it is not read any more
            found.pop(harmed.relative_to(out).as_posix())
            undamaged.pop(path.relative_to(wanted).as_posix())
        assert found == undamaged, path
        named = path.name in error
        # What is made of the parts whenever the command runs is made again without a word.
        silent = path.parent != wanted / "parts" and path.name != "manifest.json"
        assert named or silent or path.name.startswith(("snapshot", "cost")), (path, error)
        mended.append(path.name.partition("-")[0])
        shutil.rmtree(out)
    print(f"{command}: a bit in each of {', '.join(mended)}")


def test_a_clock_that_is_set_back_changes_nothing(campaign, clean, tmp_path):
    """All files are of tomorrow; half of them are gone.

    But for earlier policies, which nobody misses once they were tested.
    """
    command, wanted, _ = clean
    out = shutil.copytree(wanted, tmp_path / "out")
    parts = (path for path in (out / "parts").iterdir() if not path.name.startswith("snapshot-"))
    for i, path in enumerate(sorted(parts)):
        os.utime(path, (2**31, 2**31))
        if i % 2:
            path.unlink()
    status, error = campaign.start("count", tmp_path / "count", command, out)
    assert status == 0, error
    assert records(out) == records(wanted)
    assert DRAWN in {p.name for p in out.iterdir()} and Store(out).manifest()["frames"] > 0
