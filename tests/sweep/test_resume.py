"""Whatever ends a run, the same command goes on from there and ends with the same bits."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from entrob.evaluation import evaluator
from entrob.persistence.store import Store, read_frame
from entrob.sweep import reading, train
from entrob.sweep.experiment import Method
from entrob.sweep.progress import Progress
from entrob.sweep.runner import run


def test_finished_work_is_skipped(tiny, whole, tmp_path, parts, trained):
    root = shutil.copytree(whole, tmp_path / "out")
    before = parts(root)
    run(tiny, Store(root), "again")
    assert trained.runs == [] and parts(root) == before


def test_ctrl_c_after_a_checkpoint_loses_nothing(
    tiny, whole, tmp_path, parts, monkeypatch, trained, interrupt_at
):
    with monkeypatch.context() as patch:
        # The first call announces what is resumed, the second follows the first checkpoint.
        interrupt_at(patch, Progress, "add", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first")
    assert [name.split("-")[0] for name in parts(tmp_path)] == ["checkpoint"]
    assert Store(tmp_path).manifest()["environment"] == tiny.environment
    run(tiny, Store(tmp_path), "second")
    assert trained.chunks == tiny.chunks - 1
    assert parts(tmp_path) == parts(whole)


def test_ctrl_c_before_a_checkpoint_loses_that_chunk(
    tiny, whole, tmp_path, parts, monkeypatch, trained, interrupt_at
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, train, "write_tree", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first", test=False)
    run(tiny, Store(tmp_path), "second")
    assert trained.chunks == 1
    assert parts(tmp_path) == parts(whole)


def test_ctrl_c_while_testing_trains_nothing_again(
    tiny, whole, tmp_path, parts, monkeypatch, trained, interrupt_at
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, evaluator, "records", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first")
    trained.runs.clear()
    run(tiny, Store(tmp_path), "second")
    assert trained.runs == []
    assert parts(tmp_path) == parts(whole)


@pytest.mark.slow  # interrupted within the process above, without power in test_faults.py
def test_kill_9_and_the_same_command_again(tiny_file, tmp_path, parts, cache, trained):
    """A real process, killed as soon as its first checkpoint is there."""
    long = tmp_path / "tiny.toml"
    long.write_text(tiny_file.read_text().replace("frames = 160", "frames = 800"))
    experiment = reading.load(str(long), "quick")
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    command = [sys.executable, "-m", "entrob", "run", str(long), "--out", str(killed)]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.values["jax_disable_most_optimizations"]),
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(killed.glob("parts/checkpoint-*")) and process.poll() is None:
        assert time.monotonic() < until, "no checkpoint appeared"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(killed.glob("parts/runs-*")), "it was finished before it was killed"

    run(experiment, Store(killed), "again")
    assert 0 < trained.chunks < experiment.chunks
    run(experiment, Store(clean), "at once")
    assert {n: b for n, b in parts(killed).items() if not n.endswith(".tmp")} == parts(clean)


def test_more_seeds_train_only_the_new_ones(tiny, whole, tmp_path, parts, trained, four_wide):
    root = shutil.copytree(whole, tmp_path / "out")
    before = parts(root)
    run(dataclasses.replace(tiny, seeds=3), Store(root), "more", test=False)
    runs = read_frame(root / "runs.parquet")
    new = set(runs.loc[runs.seed == 2, "run_id"])
    assert set(trained.runs) == new and len(new) == 2 and len(runs) == 6
    assert before.items() <= parts(root).items()


def test_another_choice_of_methods_finds_finished_runs(tiny, tmp_path, trained, four_wide):
    """The batches differ, the runs are the same: none may be trained, or counted, twice."""
    store = Store(tmp_path)
    third = Method("strong", {"policy_entropy": 0.1})
    few = dataclasses.replace(tiny, methods=tiny.methods[:1])
    many = dataclasses.replace(tiny, methods=(*tiny.methods, third))
    for experiment, new in ((few, 2), (many, 4), (tiny, 0)):
        trained.runs.clear()
        run(experiment, store, "command", test=False)
        assert len(trained.runs) == new
    assert len(read_frame(tmp_path / "runs.parquet")) == 6
    assert not read_frame(tmp_path / "curves.parquet").duplicated(["run_id", "frames"]).any()
    run(many, store, "command")
    evaluation = read_frame(tmp_path / "evaluation.parquet")
    assert not evaluation.duplicated(["run_id", "perturbation", "magnitude"]).any()
    assert len(evaluation) == 6 * 2


def test_other_magnitudes_leave_one_row_each(tiny, whole, tmp_path, trained):
    root = shutil.copytree(whole, tmp_path / "out")
    more = dataclasses.replace(tiny, perturbations={"wall": (4.0, 8.0)})
    run(more, Store(root), "more")
    evaluation = read_frame(root / "evaluation.parquet")
    assert trained.runs == [] and len(evaluation) == 4 * 3
    assert not evaluation.duplicated(["run_id", "magnitude"]).any()


def test_a_short_batch_is_padded(tiny, whole, tmp_path, four_wide):
    """Four runs in batches of two, each trained and tested four wide."""
    run(tiny, Store(tmp_path), "padded", parallel_runs=3)
    assert [len(read_frame(p)) for p in tmp_path.glob("parts/runs-*")] == [2, 2]
    key = ["run_id", "frames"]
    short = read_frame(tmp_path / "curves.parquet").sort_values(key)
    full = read_frame(whole / "curves.parquet").sort_values(key)
    assert list(short.run_id) == list(full.run_id)
    np.testing.assert_allclose(short.policy_entropy, full.policy_entropy, rtol=1e-5)
    assert len(read_frame(tmp_path / "evaluation.parquet")) == 4 * 2
