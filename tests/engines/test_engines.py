"""Engines for real: a Ray cluster of two nodes, and submitit's executor on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny as experiment_file

from entrob.cli import main
from entrob.engines import ray as on_ray
from entrob.engines import slurm as on_slurm
from entrob.engines.worker import Worker
from entrob.errors import EntrobError


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A planned folder, to be copied: four batches of one run, thirty chunks each."""
    folder = tmp_path_factory.mktemp("engines")
    file = experiment_file.write(folder)
    arguments = ["plan", file, "--preset", "smoke", "--parallel-runs", "1", "--frames", "2400"]
    _entrob(*arguments, "--out", folder / "planned")
    return folder / "planned"


@pytest.fixture(scope="module")
def alone(plan):
    """The same, worked off by one process."""
    folder = plan.parent / "alone"
    shutil.copytree(plan, folder)
    _entrob("work", folder)
    return folder


def _entrob(*arguments):
    command = [sys.executable, "-m", "entrob", *map(str, arguments)]
    assert subprocess.run(command).returncode == 0


def _workers(folder) -> list[int]:
    """Numbers of the processes that work on a folder."""
    found = subprocess.run(["pgrep", "-f", f"entrob work {folder}"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def _wait_until(there, seconds=300):
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_ray_cluster_of_which_a_node_is_lost_in_the_middle_of_a_batch(
    plan, alone, parts, tmp_path, monkeypatch
):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    folder = shutil.copytree(plan, tmp_path / "out")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)

    def lose():
        _wait_until(lambda: list(folder.glob("parts/checkpoint-*")) and len(_workers(folder)) == 2)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        on_ray.work(folder, parallel=2)
    finally:
        thread.join()
        cluster.shutdown()
    assert parts(folder) == parts(alone)


@pytest.mark.slow
def test_jobs_of_which_one_is_killed_and_one_runs_out_of_time(plan, alone, parts, tmp_path):
    """SIGUSR2 is what SLURM sends before the time is up; SIGKILL cannot be answered."""
    pytest.importorskip("submitit")
    folder = shutil.copytree(plan, tmp_path / "out")
    seen = []

    def disturb():
        for number in (signal.SIGUSR2, signal.SIGKILL):
            _wait_until(lambda: len(_jobs(folder)) >= 2 and list(folder.glob("parts/checkpoint-*")))
            victim = _jobs(folder)[0]
            seen.append(victim)
            os.kill(victim, number)
            time.sleep(5)

    thread = threading.Thread(target=disturb)
    thread.start()
    on_slurm.work(folder, parallel=2, hours=1, cluster="local")
    thread.join()
    assert len(seen) == 2 and parts(folder) == parts(alone)


@pytest.mark.slow
def test_jobs_of_a_slurm_that_is_there_work_on_a_fresh_folder(plan, alone, parts):
    """The jobs' logs reach it before any result does."""
    pytest.importorskip("submitit")
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM answers here")
    folder = plan.parent / "fresh"
    folder.mkdir()
    shutil.copy(plan / "plan.json", folder)
    on_slurm.work(folder, parallel=2, hours=1)
    # One process had the runs planned one by one, as these have.
    assert parts(folder) == parts(alone)


def _jobs(folder) -> list[int]:
    """Numbers of submitit's processes for a folder."""
    pattern = f"submitit.core._submit {folder / 'slurm'}"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True)
    return sorted(int(line) for line in found.stdout.split())


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_said_by_the_engine_in_one_line(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(EntrobError, match=r"holds no plan \(no plan\.json\)"):
        on_slurm.work(tmp_path, parallel=1, hours=1, cluster="local")


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_line(plan, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "1")
    with pytest.raises(EntrobError, match="no Ray cluster answers at RAY_ADDRESS=127"):
        on_ray.work(plan)


def test_a_worker_says_what_was_wrong_in_its_last_line(tmp_path, capfd):
    with pytest.raises(EntrobError, match=r"^.*holds no plan \(no plan\.json\)"):
        Worker(tmp_path).run()


@pytest.mark.parametrize(
    ("on", "module", "message"),
    [
        ("ray", "ray", "--on ray needs Ray: pip install 'entrob[ray]'"),
        ("slurm", "submitit", "--on slurm needs submitit: pip install 'entrob[slurm]'"),
    ],
)
def test_an_engine_without_its_extra_is_one_line(
    on, module, message, tiny_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tiny_file), "--on", on, "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and lines[-1] == f"entrob: {message}"


@pytest.mark.parametrize("option", ["--no-resume", "--track=tensorboard"])
def test_what_other_workers_cannot_do_is_refused(option, tiny_file, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tiny_file), "--on", "ray", option, "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and option.partition("=")[0] in lines[0]
    assert not (tmp_path / "out").exists()


def test_no_slurm_is_one_line(tiny_file, tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit):
        main(["run", str(tiny_file), "--on", "slurm", "--out", str(tmp_path / "out")])
    assert "there is no SLURM here (no srun)" in capsys.readouterr().err
