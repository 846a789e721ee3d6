"""Plan, work, gather on the command line, and what is wrong with a plan in one line."""

import json

import pytest

from entrob.cli import main
from entrob.persistence.store import Store


def plan(tiny_file, out, *arguments):
    main(["plan", str(tiny_file), "--parallel-runs", "2", "--out", str(out), *arguments])
    return json.loads((out / "plan.json").read_text())


def refused(capsys, *arguments):
    """The one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_plan_work_and_gather_are_run(tiny_file, tmp_path, capsys, four_wide):
    out = tmp_path / "out"
    facts = plan(tiny_file, out)
    shown = capsys.readouterr().out
    assert "2 batches, 640 frames" in shown and f"entrob work {out}" in shown
    assert facts["devices"] == {"platform": "cpu", "number": 2}
    batch = shown.split()[0]
    main(["work", str(out), batch])
    assert [path.stem for path in Store(out).parts("runs")] == [f"runs-{batch}"]
    main(["work", str(out)])
    assert len(Store(out).gather("runs")) == 4 and not (out / "report.md").exists()
    capsys.readouterr()
    main(["gather", str(out)])
    assert f"report: {out / 'report.md'}" in capsys.readouterr().out
    # The command that is recorded is the one that planned.
    assert json.loads((out / "manifest.json").read_text())["command"].startswith("entrob plan")
    assert (out / "report.md").exists()


def test_a_run_can_be_joined(tiny_file, tmp_path):
    out = tmp_path / "out"
    main(["run", str(tiny_file), "--seeds", "1", "--out", str(out)])
    facts = json.loads((out / "plan.json").read_text())
    assert facts["run"]["seeds"] == 1 and facts["run"]["experiment"] == str(tiny_file)
    main(["work", str(out)])  # nothing is left


def test_what_is_wrong_with_a_plan_is_one_line(tiny_file, tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(tiny_file.read_text())
    out = tmp_path / "out"
    assert "holds no plan (no plan.json)" in refused(capsys, "work", out)
    assert "holds no plan (no plan.json)" in refused(capsys, "gather", out)
    facts = plan(file, out)
    assert f"no batch 17 is planned in {out}" in refused(capsys, "work", out, "17")
    assert "holds no finished runs yet" in refused(capsys, "gather", out)
    file.write_text(file.read_text().replace("policy_entropy = 0.01", "policy_entropy = 0.02"))
    assert "plan again" in refused(capsys, "work", out)
    for damage, message in [
        (json.dumps({"format": 0, "run": facts["run"]}), "a plan of another version of entrob"),
        (json.dumps({**facts, "command": "another"}), "is damaged (checksum)"),
        ("[]", "a plan of another version"),
        ("{", "is damaged"),
    ]:
        (out / "plan.json").write_text(damage)
        assert message in refused(capsys, "work", out)


def test_a_folder_that_cannot_be_written_is_one_line(tiny_file, capsys):
    assert "/proc/entrob" in refused(capsys, "plan", tiny_file, "--out", "/proc/entrob")


def test_logs_that_come_before_any_result_are_no_obstacle(tiny_file, tmp_path):
    """Of SLURM's jobs, which are there before a worker begins."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "1_0_log.out").write_text("")
    plan(tiny_file, tmp_path)


def test_a_folder_of_others_is_left_as_it_is(tiny_file, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("")
    line = refused(capsys, "plan", tiny_file, "--out", tmp_path)
    assert "is not empty and holds no entrob results" in line
    assert not (tmp_path / "plan.json").exists()
