"""Every command, on the tiny experiment."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from entrob import cli
from entrob.envs import environments
from entrob.persistence.store import read_frame
from entrob.perturbations import perturbations
from entrob.sweep.experiment import FIRST_TUNING_SEED
from entrob.sweep.tune import THRESHOLD


def test_list_names_everything(capsys):
    cli.main(["list"])
    out = capsys.readouterr().out
    for name in ("minigrid/empty-8x8", "minigrid", "none", "state_entropy", "wall", "slip"):
        assert f"  {name}" in out
    for names in (environments.names(), perturbations.names()):
        assert set(names) <= set(out.split())
    cli.main(["list", "regularizers"])
    out = capsys.readouterr().out
    assert "policy_entropy" in out and "wall" not in out


@pytest.mark.parametrize("command", [[], ["list"], ["run"], ["tune"], ["report"], ["status"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*command, "--help"])
    out = capsys.readouterr().out
    assert exit.value.code == 0
    assert "entrob" in out and ("xample:" in out or not command)


def test_the_real_process_fails_with_2_and_one_line():
    command = [sys.executable, "-m", "entrob"]
    done = subprocess.run([*command, "run", "minigird"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "entrob: unknown experiment 'minigird': did you mean 'minigrid'?\n"


def test_status_of_a_finished_and_of_an_interrupted_run(tiny, whole, tmp_path, capsys):
    cli.main(["status", str(whole)])
    out = capsys.readouterr().out
    assert "4 runs trained" in out and "missing" not in out
    root = shutil.copytree(whole, tmp_path / "out")
    (runs,) = root.glob("parts/runs-*")
    runs.rename(str(runs).replace("runs-", "checkpoint-"))
    cli.main(["status", str(root)])
    out = capsys.readouterr().out
    assert "under way: checkpoint-" in out
    assert "4 of 4 runs are missing; go on with: entrob run tiny" in out


def test_report_and_export(whole, tmp_path, capsys):
    root = shutil.copytree(whole, tmp_path / "out")
    cli.main(["report", str(root), "--export", str(tmp_path / "results")])
    for name in ("report.md", "manifest.json", "tables/success.csv", "figures/horizon.png"):
        exported, original = tmp_path / "results" / name, root / name
        assert exported.read_bytes() == original.read_bytes() != b""
    assert f"exported: {tmp_path / 'results'}" in capsys.readouterr().out


def test_no_resume_spares_what_is_not_its_own(tiny_file, tmp_path, capsys):
    arguments = ["run", str(tiny_file), "--no-resume", "--out"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as exit:
        cli.main([*arguments, str(foreign)])
    assert exit.value.code == 2 and (foreign / "thesis.txt").read_text() == "years of work"
    assert "is not empty" in capsys.readouterr().err


def test_tune_writes_its_table_and_choice(tiny_file, tmp_path, capsys, monkeypatch):
    from entrob.sweep import tune

    monkeypatch.setattr(tune, "_MAX_EXTENSIONS", 0)  # untrained policies pass or fail by chance
    file = tmp_path / "tiny.toml"
    grids = "[tune]\nseeds = 2\n[tune.grids.policy_entropy]\nvalues = [0.1]\n"
    file.write_text(tiny_file.read_text() + grids)
    root = tmp_path / "out"
    export = tmp_path / "export"
    cli.main(["tune", str(file), "--out", str(root), "--export", str(export)])
    table = pd.read_csv(root / "tables" / "tuning.csv")
    assert list(table.method) == ["none", "policy_entropy"] and list(table.seeds) == [2, 2]
    assert (table.passes == (table["mean"] >= THRESHOLD * table["mean"][0])).all()
    for suffix in ("md", "tex"):
        assert "policy" in (root / "tables" / f"tuning.{suffix}").read_text()
    chosen = json.loads((root / "tuned.json").read_text())["coefficients"]
    assert chosen == {"policy_entropy": table.coefficient[table.chosen].sum()}
    assert read_frame(root / "runs.parquet").seed.min() >= FIRST_TUNING_SEED
    assert (export / "tuned.json").exists() and (export / "tables" / "tuning.md").exists()
    assert "policy_entropy" in capsys.readouterr().out


def test_run_trains_tests_and_reports(tiny_file, whole, tmp_path, capsys):
    """A selection of what is there already, under one more perturbation."""
    root = shutil.copytree(whole, tmp_path / "out")
    arguments = ["run", str(tiny_file), "--out", str(root), "--seeds", "1"]
    cli.main([*arguments, "--regularizer", "policy_entropy", "--perturbation", "goal_shift"])
    out = capsys.readouterr().out
    assert f"report: {root / 'report.md'}" in out
    assert "640 frames" in out  # the manifest counts all sessions
    evaluation = read_frame(root / "evaluation.parquet")
    assert set(evaluation.perturbation) == {"nominal", "wall", "goal_shift"}
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["seeds"] == [0] and set(manifest["methods"]) == {"none", "policy_entropy"}


def test_setup_leaves_devices_alone_once_jax_runs():
    import jax

    count = len(jax.devices())
    cli.setup()
    assert len(jax.devices()) == count


def test_the_recorded_command_names_no_folder_of_this_machine(tiny_file, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "out")
    cli.main(["run", str(tiny_file), "--out", str(root)])
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["command"] == f"entrob run {tiny_file.name} --out out"
