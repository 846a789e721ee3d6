"""Trackers between chunks: what they are told is what the curves say."""

import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entrob.cli import headline, tracking
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


@pytest.mark.slow
def test_tensorboard_offline(tmp_path):
    pytest.importorskip("tensorboardX")
    logged("tensorboard", tmp_path)
    files = list(tmp_path.glob("tensorboard/tiny/none abcdef/events*"))
    assert len(files) == 1
    data = files[0].read_bytes()
    # The mean over the method's two runs, as little-endian floats of the event's record.
    assert b"return_mean" in data
    assert struct.pack("<f", 200.0) in data and struct.pack("<f", 400.0) in data


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged("wandb", tmp_path)
    stored = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(stored) == 2
    assert any(b"return_mean" in path.read_bytes() for path in stored)


@pytest.mark.slow
def test_trackio_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trackio")
    logged("trackio", tmp_path)
    assert any(path.stat().st_size for path in Path(tmp_path).rglob("*.db"))


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
