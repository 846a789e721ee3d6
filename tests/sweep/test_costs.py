"""Frames and seconds are those of what was trained, however often that was interrupted."""

import itertools
import shutil
import types

import pytest

from entrob.persistence.store import Store, read_json, write_json
from entrob.sweep import costs, train
from entrob.sweep.costs import Cost, add, cost_of, total
from entrob.sweep.progress import Progress
from entrob.sweep.runner import run
from entrob.sweep.worker import Session

#: Environment steps of all runs of the tiny experiment.
FRAMES = 640


@pytest.fixture
def interrupted(tiny, tmp_path, monkeypatch, interrupt_at):
    """The folder of a session that Ctrl-C ended after its first checkpoint of two."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, Progress, "add", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first", test=False)
    return tmp_path


def test_frames_and_seconds_of_an_interrupted_session_count(tiny, interrupted, monkeypatch):
    store = Store(interrupted)
    assert store.manifest()["frames"] == 0  # of finished batches
    ticks = itertools.count(0.0, 100.0)
    with monkeypatch.context() as patch:
        patch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
        manifest = run(tiny, store, "second", test=False)
    # Sessions have files of their own, for their time.
    paths = (interrupted / "parts").glob("cost-*")
    (took,) = (cost for cost in (Cost(**read_json(path)) for path in paths) if cost.frames)
    # One chunk by the clock that ticks, the first by one that does not.
    assert took.frames == manifest["frames"] == FRAMES
    assert 100 < took.train_s < 200 and manifest["train_time_s"] == round(took.train_s, 2)


def test_a_checkpoint_of_an_earlier_version_goes_on(
    tiny, whole, tmp_path, monkeypatch, trained, interrupt_at, parts
):
    def earlier(*args, real=train._checkpoint):
        return {k: v for k, v in real(*args).items() if k != "train_s"}

    with monkeypatch.context() as patch:
        patch.setattr(train, "_checkpoint", earlier)
        interrupt_at(patch, Progress, "add", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first", test=False)
    run(tiny, Store(tmp_path), "second")
    assert trained.chunks == tiny.chunks - 1 and parts(tmp_path) == parts(whole)


def test_what_a_folder_of_an_earlier_version_took_stays(tiny, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "out")
    store = Store(root)
    for path in root.glob("parts/cost-*"):
        path.unlink()
    manifest = store.manifest()
    del manifest["earlier"]
    write_json(store.manifest_path, {**manifest, "frames": 600, "train_time_s": 9.0})
    for _ in range(2):
        again = run(tiny, store, "again", test=False)
        assert (again["frames"], again["train_time_s"]) == (600, 9.0)
    add(store, "another", Cost(40, 1.0))
    assert total(store, Session(store, "worker").earlier)[:2] == (640, 10.0)


def test_a_damaged_cost_is_no_cost_and_does_no_harm(tmp_path):
    store = Store(tmp_path)
    add(store, "a", Cost(10, 1.0))
    add(store, "a", Cost(test_s=2.0))
    assert cost_of(store, "a") == Cost(10, 1.0, 2.0, 0.0)
    for harm in ("{", "[]", '{"weight": 3}'):
        store.part("cost", "a", ".json").write_text(harm)
        assert cost_of(store, "a") == Cost()
    store.drop("a")
    assert not list(tmp_path.glob("parts/*"))


def test_training_that_is_finished_twice_counts_once(tmp_path):
    """As when the power fails after its cost is written and before its runs are."""
    store = Store(tmp_path)
    add(store, "a", Cost(compile_s=2.0))
    for _ in range(2):
        costs.trained(store, "a", 40, 1.5)
    assert cost_of(store, "a")[:4] == (40, 1.5, 0.0, 2.0)
