"""Policies kept while training are tested like the last one, and survive what may happen."""

import dataclasses
import itertools

import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.persistence.store import Store, read_frame
from entrob.sweep import reading, snapshots
from entrob.sweep.runner import run


@pytest.fixture(scope="module")
def watched(tiny):
    return dataclasses.replace(tiny, snapshots=2, snapshot_perturbations={"wall": 8.0})


@pytest.fixture(scope="module")
def folder(watched, tmp_path_factory):
    root = tmp_path_factory.mktemp("watched") / "out"
    run(watched, Store(root), "entrob run tiny")
    return root


def test_snapshots_are_evenly_spaced_and_end_with_the_last_policy(tiny):
    long = dataclasses.replace(tiny, frames=80 * 63)
    at = snapshots.chunks(dataclasses.replace(long, snapshots=20))
    assert len(set(at)) == 20 and at[-1] == 63
    assert {b - a for a, b in itertools.pairwise(at)} == {3, 4}
    assert snapshots.chunks(dataclasses.replace(tiny, snapshots=9)) == [1, 2]
    assert snapshots.chunks(tiny) == []


def test_the_last_snapshot_is_the_policy_that_is_reported(watched, folder):
    progress = read_frame(folder / "progress.parquet")
    evaluation = read_frame(folder / "evaluation.parquet").set_index(["run_id", "magnitude"])
    assert sorted(progress.frames.unique()) == [80, 160]
    assert set(progress.perturbation) == {"nominal", "wall"}
    last = progress[progress.frames == 160].set_index(["run_id", "magnitude"])
    assert len(last) == 2 * len(watched.methods) * watched.seeds
    for column in ("success", "return_mean", "exact_success"):
        pd.testing.assert_series_equal(
            last[column].sort_index(),
            evaluation[column].sort_index(),
        )
    first = progress[progress.frames == 80].set_index(["run_id", "magnitude"])
    assert (first.exact_success.sort_index() != last.exact_success.sort_index()).any()


def test_a_run_with_snapshots_is_the_same_run(whole, folder):
    plain, kept = (read_frame(root / "evaluation.parquet") for root in (whole, folder))
    pd.testing.assert_frame_equal(plain, kept)


def test_what_was_tested_is_not_tested_again_and_a_damaged_snapshot_is_named(
    watched, folder, capsys
):
    store = Store(folder)
    before = (folder / "progress.parquet").read_bytes()
    run(watched, store, "again")
    assert (folder / "progress.parquet").read_bytes() == before
    part = next((folder / "parts").glob("progress-*.parquet"))
    bad = next((folder / "parts").glob("snapshot-*-1.msgpack"))
    part.unlink()
    bad.write_bytes(b"x" + bad.read_bytes()[1:])
    run(watched, store, "again")
    assert f"{bad} is damaged" in capsys.readouterr().err
    assert sorted(read_frame(folder / "progress.parquet").frames.unique()) == [160]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("snapshots = -1", "snapshots must be a whole number of at least 0, not -1"),
        (
            "snapshots = 2\nsnapshot_perturbations = { wall = 99 }",
            "magnitude of 'wall' must be a whole number in",
        ),
        ("snapshots = 1.5", "snapshots must be a whole number"),
    ],
)
def test_what_cannot_be_kept_is_one_line(tiny_file, tmp_path, line, error):
    path = tmp_path / "tiny.toml"
    path.write_text(line + "\n" + tiny_file.read_text())
    with pytest.raises(EntrobError, match=error):
        reading.load(str(path), "quick")
