"""Several processes in one folder: they share the work, and the bits are those of one alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tiny as experiment_file

from entrob.errors import EntrobError
from entrob.persistence.leases import Leases
from entrob.persistence.store import Store, read_json, write_json
from entrob.sweep import batches, runner, worker
from entrob.sweep.groups import group_methods


def test_a_batch_that_another_worker_has_is_waited_for_and_not_trained(
    tiny, whole, tmp_path, parts, trained, monkeypatch
):
    """The other one is at it until we have looked a few times, and then its results are there."""
    monkeypatch.setattr(worker, "POLL", 0.05)
    root = tmp_path / "out"
    store = Store(root)
    (name,) = runner.plan(tiny, store, "plan")
    other = Leases(root / "leases", "other").take(name)
    looks = []

    def arrives():
        while len(looks) < 3:
            time.sleep(0.01)
        for path in (whole / "parts").glob(f"*-{name}*"):
            (root / "parts").mkdir(exist_ok=True)
            (root / "parts" / path.name).write_bytes(path.read_bytes())
        other.release()

    taken = Leases.take
    monkeypatch.setattr(Leases, "take", lambda *args: looks.append(args) or taken(*args))
    thread = threading.Thread(target=arrives)
    thread.start()
    runner.run(tiny, store, "run")
    thread.join()
    assert trained.runs == [] and parts(root) == parts(whole)


def test_two_workers_at_once_train_every_batch_once(
    tiny, tmp_path, trained, monkeypatch, four_wide
):
    """Threads stand for processes; two batches of one width, so that one program does for both."""
    monkeypatch.setattr(worker, "POLL", 0.05)
    root = tmp_path / "out"
    assert len(runner.plan(tiny, Store(root), "plan", parallel_runs=2)) == 2
    trainers, errors = {}, []

    def work():
        try:
            runner.run(tiny, Store(root), "run", parallel_runs=2, trainers=trainers)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and sorted(trained.runs) == sorted(set(trained.runs))
    assert len(Store(root).gather("runs")) == 4
    assert not (root / "leases").exists()
    # Both were there, and what they trained is counted once.
    assert Store(root).manifest()["frames"] == 4 * 160


def test_a_batch_stays_as_it_was_planned(tiny, tmp_path, trained):
    """Whatever size the next worker would have chosen."""
    store = Store(tmp_path / "out")
    names = set(runner.plan(tiny, store, "plan", parallel_runs=2))
    runner.run(tiny, store, "run", parallel_runs=1, only=sorted(names)[0])
    assert {path.stem.removeprefix("runs-") for path in store.parts("runs")} == {sorted(names)[0]}
    assert len(trained.runs) == 2


def test_a_batch_for_other_devices_is_refused_in_one_line(tiny, tmp_path):
    store = Store(tmp_path / "out")
    (name,) = runner.plan(tiny, store, "plan")
    (group,) = group_methods(tiny.methods)
    path = batches.path_of(store, group)
    plan = read_json(path)
    plan["batches"][name]["devices"] = ["gpu", 1]
    write_json(path, plan)
    with pytest.raises(EntrobError, match=r"is planned for 1 gpu device, and here are 2 cpu dev"):
        runner.run(tiny, store, "run")
    write_json(path, {**plan, "format": 0})
    with pytest.raises(EntrobError, match="of another version"):
        runner.run(tiny, store, "run")


def test_a_damaged_plan_is_made_again(tiny, tmp_path):
    store = Store(tmp_path / "out")
    before = runner.plan(tiny, store, "plan")
    (group,) = group_methods(tiny.methods)
    batches.path_of(store, group).write_text("{")
    assert runner.plan(tiny, store, "plan") == before


def _entrob(*args, **options):
    command = [sys.executable, "-m", "entrob", *map(str, args)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_workers_of_a_plan_of_which_one_is_killed(tmp_path, parts):
    """One alone, and two of which one is killed in the middle of a batch: the same bits."""
    file = experiment_file.write(tmp_path)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    plan = ("plan", file, "--preset", "smoke", "--parallel-runs", 2, "--frames", 2400)
    for name in ("alone", "shared"):
        assert _entrob(*plan, "--out", tmp_path / name, env=env).wait() == 0
    assert _entrob("work", tmp_path / "alone", env=env).wait() == 0
    shared = tmp_path / "shared"
    victim, other = (_entrob("work", shared, env=env) for _ in range(2))
    while not list(shared.glob("parts/checkpoint-*")) and victim.poll() is None:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    assert other.wait() == 0 and victim.wait() == -signal.SIGKILL
    assert parts(shared) == parts(tmp_path / "alone")
    assert _entrob("gather", shared, env=env).wait() == 0
    assert (shared / "report.md").exists()
    assert json.loads((shared / "manifest.json").read_text())["frames"] == 4 * 2400


@pytest.mark.slow
def test_eight_devices_share_the_runs_of_a_batch(tmp_path):
    """Each has its own; the plan says so, and a worker has as many whatever its machine has."""
    file, frames = experiment_file.write(tmp_path), {}
    for number in (1, 8):
        env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(number)}
        out = tmp_path / str(number)
        plan = ("plan", file, "--preset", "smoke", "--seeds", 8, "--out", out)
        assert _entrob(*plan, env=env).wait() == 0
        env.pop("JAX_NUM_CPU_DEVICES")
        assert _entrob("work", out, env=env).wait() == 0
        frames[number] = Store(out).gather("evaluation")
    keys = ["method", "seed", "perturbation", "magnitude"]
    one, eight = (frames[n].set_index(keys).sort_index() for n in (1, 8))
    assert len(eight) == 32 and (one.index == eight.index).all()
    np.testing.assert_allclose(one.exact_success, eight.exact_success, atol=1e-4)
