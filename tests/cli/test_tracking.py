"""Trackers between chunks: what they are told is what the curves say."""

import contextlib
import json
import sqlite3
import struct
import sys
import time

import numpy as np
import pandas as pd
import pytest

from entrob.cli import headline, main, tracking
from entrob.errors import EntrobError
from entrob.persistence.store import Store
from entrob.sweep import runner
from entrob.sweep.progress import steps


def told(experiment, root):
    """What a run tells of every chunk: (frames, methods, means)."""
    heard = []

    def watch(experiment, batch, frames, means):
        heard.append((frames, [run.method.name for run in batch.runs], means))

    runner.run(experiment, Store(root), "", test=False, watch=watch)
    return heard


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(EntrobError, match=r"needs wandb.*pip install 'entrob\[wandb\]'"),
        tracking.watching("wandb", "p", tmp_path),
    ):
        pass


def test_nothing_is_told_unless_asked(tmp_path):
    with tracking.watching("none", "p", tmp_path) as watch:
        assert watch is None


def test_means_of_a_chunk_are_those_of_the_curves(tiny, tmp_path):
    heard = told(tiny, tmp_path / "out")
    assert len(heard) == tiny.chunks * len(Store(tmp_path / "out").parts("runs"))
    frames = [f for f, *_ in heard]
    assert max(frames) == tiny.updates * tiny.num_envs * tiny.num_steps
    curves = Store(tmp_path / "out").gather("curves")
    whole = curves.groupby("method").policy_entropy.mean()
    for method in whole.index:
        means = [
            means["policy_entropy"][[name == method for name in names]].mean()
            for _, names, means in heard
            if method in names
        ]
        assert np.mean(means) == pytest.approx(whole[method], rel=1e-4)


def logged(name, tmp_path):
    """Two chunks of two methods, logged by a tracker."""

    class Run:
        def __init__(self, method):
            self.method = type("M", (), {"name": method})

    batch = type("B", (), {"runs": [Run("none"), Run("none"), Run("se")], "id": "abcdef0123"})
    experiment = type("E", (), {"name": "tiny"})
    with tracking.watching(name, "entrob-test", tmp_path) as watch:
        for frames in (100, 200):
            values = np.array([1.0, 3.0, np.nan]) * frames
            watch(experiment, batch, frames, {"return_mean": values})


#: What the two runs were told: (run, frames, values); of the second, whose mean is NaN, nothing.
TOLD = {
    ("none abcdef", 100, 200.0),
    ("none abcdef", 200, 400.0),
    ("se abcdef", 100, None),
    ("se abcdef", 200, None),
}


def events(data):
    """Payloads of a file of TensorBoard's events: length, its checksum, payload, its checksum."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += length + 16


def blocks(data):
    """Payloads of LevelDB's log format, which wandb's files have after seven bytes of their own."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def scalars(folder):
    """(tag, frames, value) of every scalar in a folder of TensorBoard's."""
    from tensorboardX.proto import event_pb2

    for path in folder.glob("events*"):
        for payload in events(path.read_bytes()):
            event = event_pb2.Event.FromString(payload)
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value


@pytest.mark.slow
def test_tensorboard_offline(tmp_path):
    pytest.importorskip("tensorboardX")
    logged("tensorboard", tmp_path)
    found = set(scalars(tmp_path / "tensorboard" / "tiny" / "none abcdef"))
    assert found == {("return_mean", 100, 200.0), ("return_mean", 200, 400.0)}
    assert set(scalars(tmp_path / "tensorboard" / "tiny" / "se abcdef")) == set()


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged("wandb", tmp_path)
    read = lambda path: [
        wandb_internal_pb2.Record.FromString(block) for block in blocks(path.read_bytes())
    ]
    paths, found = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb")), set()
    for path in paths:
        # Its service writes the end of the file a moment after the run is finished.
        for _ in range(600):
            records = read(path)
            if records and records[-1].HasField("exit"):
                break
            time.sleep(0.1)
        (run,) = {r.run.display_name for r in records if r.HasField("run")}
        assert {r.run.run_group for r in records if r.HasField("run")} == {"tiny"}
        for record in records:
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if items:
                value = json.loads(items.get("return_mean", "null"))
                found.add((run, json.loads(items["_step"]), value))
    assert found == TOLD


@pytest.mark.slow
def test_trackio_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trackio")
    logged("trackio", tmp_path)
    (path,) = tmp_path.rglob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    found = {(run, step, json.loads(values).get("return_mean")) for run, step, values in rows}
    assert found == {(f"tiny {run}", step, value) for run, step, value in TOLD}


@pytest.mark.slow
def test_a_run_is_tracked_from_the_command_line(tiny_file, tmp_path):
    """What a tracker holds are the means of the curves that the run keeps."""
    pytest.importorskip("tensorboardX")
    out = tmp_path / "out"
    command = ["run", str(tiny_file), "--preset", "quick", "--out", str(out)]
    main([*command, "--track", "tensorboard"])
    curves = Store(out).gather("curves")
    for method, own in curves.groupby("method"):
        (folder,) = out.glob(f"tensorboard/tiny/{method} *")
        found = [(step, value) for tag, step, value in scalars(folder) if tag == "policy_entropy"]
        # A value per chunk of five updates with 2 × 8 frames each.
        assert [step for step, _ in found] == [80, 160] and own.frames.max() == 160
        mean = np.mean([value for _, value in found])
        assert mean == pytest.approx(own.policy_entropy.mean(), rel=1e-4)


def test_steps_say_how_long_is_left(capsys):
    with steps("testing", 4, quiet=-1.0) as step:
        for _ in range(4):
            step()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # of the last one nothing is left
    assert lines[0].startswith("testing  25%  1 of 4") and lines[0].endswith("s left")


def test_the_headline_is_the_table(tmp_path, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    headline.show(tmp_path)
    assert capsys.readouterr().out == ""
    columns = ["method", "success", "success_low", "success_high"]
    pd.DataFrame([("none", 1, None, None), ("a[paper]", 0.5, 0.25, 0.75)], columns=columns).to_csv(
        tables / "nominal.csv"
    )
    rows = pd.DataFrame([("none", 0.1, 0, 0.2), ("a[paper]", 0.9, 0.8, 1)], columns=columns)
    rows.assign(perturbation="goal_shift", magnitude=7.0).to_csv(tables / "success.csv")
    headline.show(tmp_path)
    said = capsys.readouterr().out
    assert "goal shift 7" in said and "a (paper)" in said
    assert "0.90 [0.80, 1.00]" in said and "0.10 [0.00, 0.20]" in said and "\\" not in said
    assert "1.00 │" in said  # no interval


def test_the_headline_of_a_board(tmp_path, capsys):
    (tmp_path / "tables").mkdir()
    row = {"rank": 1, "method": "apt", "overall": 0.5, "overall_low": -0.1, "overall_high": 0.9}
    row |= {"least": 0.2, "least_class": "routes", "routes": 0.2, "shifts": 0.8}
    row |= {"nominal_gain": 0.0, "price": 0.015}
    rows = [row] + [
        {**row, "rank": None, "method": f"m{i}", "overall_low": None} for i in range(20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "tables" / "leaderboard.csv", index=False)
    headline.show(tmp_path)
    said = capsys.readouterr().out
    assert "15 of 21 methods" in said and "0.50 [-0.10, 0.90]" in said and "1.5%" in said
    assert "m13" in said and "m14" not in said and "nominal_gain" not in said
