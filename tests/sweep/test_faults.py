"""Damaged files are found, named and redone; a full disk costs nothing that was finished."""

import errno
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.persistence.store import (
    Damaged,
    Store,
    read_frame,
    read_json,
    read_tree,
    write_frame,
    write_sealed,
    write_tree,
)
from entrob.sweep import train
from entrob.sweep.runner import run


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(bytes(data))


def flip_in_footer(path):
    flip(path, at=0.9)


FRAME = pd.DataFrame(
    {"run_id": ["a", "b"], "seed": [1, 2], "success": [0.5, np.nan], "hist": [[1, 2], [3, 4]]}
)


def test_no_flipped_bit_in_a_frame_goes_unnoticed(tmp_path):
    path = tmp_path / "frame.parquet"
    write_frame(path, FRAME)
    data = path.read_bytes()
    unnoticed = 0
    for i in range(0, len(data), 3):
        path.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
        try:
            found = read_frame(path)
        except Damaged as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        # Only the mark that says "sealed" may change, and then the data are whole.
        unnoticed += 1
        assert [list(h) for h in found.pop("hist")] == [[1, 2], [3, 4]]
        pd.testing.assert_frame_equal(found, FRAME.drop(columns="hist"))
    assert unnoticed <= len(b"entrob sha256 ")


def test_any_reader_of_parquet_reads_a_frame(tmp_path):
    write_frame(tmp_path / "frame.parquet", FRAME)
    found = pd.read_parquet(tmp_path / "frame.parquet")
    assert list(found.seed) == [1, 2] and list(found.columns) == list(FRAME.columns)


def test_a_frame_without_a_seal_is_read(tmp_path):
    FRAME.to_parquet(tmp_path / "frame.parquet")
    assert list(read_frame(tmp_path / "frame.parquet").run_id) == ["a", "b"]


@pytest.mark.parametrize("harm", [truncate, empty, flip])
def test_a_damaged_tree_is_noticed(tmp_path, harm):
    tree = {"a": np.arange(100.0), "b": np.int32(3)}
    path = tmp_path / "tree.msgpack"
    write_tree(path, tree)
    np.testing.assert_array_equal(read_tree(path, tree)["a"], tree["a"])
    with pytest.raises(Damaged, match="another network or version"):
        read_tree(path, {"a": np.arange(99.0), "b": np.int32(3)})
    harm(path)
    with pytest.raises(Damaged, match="checksum"):
        read_tree(path, tree)


#: Every kind and every harm once, and what else there is.
FAULTS = [("runs", truncate), ("curves", flip), ("policies", os.unlink)]
FAULTS += [("evaluation", flip_in_footer)]
OTHERS = [("runs", flip_in_footer), ("policies", flip), ("policies", truncate)]
OTHERS += [("evaluation", truncate)]


@pytest.mark.parametrize(
    ("kind", "harm"), [*FAULTS, *(pytest.param(*fault, marks=pytest.mark.slow) for fault in OTHERS)]
)
def test_a_damaged_part_is_named_and_redone(
    tiny, whole, tmp_path, capsys, parts, trained, kind, harm
):
    root = shutil.copytree(whole, tmp_path / "out")
    path = min(root.glob(f"parts/{kind}-*"))
    harm(path)
    run(tiny, Store(root), "again")
    assert str(path) in capsys.readouterr().err
    assert len(trained.runs) == (0 if kind == "evaluation" else 4)
    assert parts(root) == parts(whole)


@pytest.mark.parametrize("harm", [flip, pytest.param(truncate, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_named_and_its_batch_redone(
    tiny, whole, tmp_path, capsys, parts, monkeypatch, trained, interrupt_at, harm
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, train, "write_tree", call=2)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, Store(tmp_path), "first", test=False)
    (path,) = tmp_path.glob("parts/checkpoint-*")
    harm(path)
    run(tiny, Store(tmp_path), "again")
    assert str(path) in capsys.readouterr().err
    assert trained.chunks == tiny.chunks
    assert parts(tmp_path) == parts(whole)


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("harm", [truncate, empty, flip_in_footer])
@pytest.mark.parametrize("kind", ["runs", "evaluation"])
def test_status_and_report_name_what_is_damaged(whole, tmp_path, capsys, command, harm, kind):
    root = shutil.copytree(whole, tmp_path / "out")
    path = min(root.glob(f"parts/{kind}-*"))
    harm(path)
    with pytest.raises(SystemExit) as exit:
        cli.main([command, str(root)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    assert path.name in error and "damaged" in error


@pytest.mark.parametrize("harm", [truncate, flip, os.unlink])
def test_a_damaged_manifest_is_named_and_made_again(
    tiny, whole, tmp_path, capsys, parts, trained, harm
):
    """One without a manifest was refused for ever as nobody's."""
    root = shutil.copytree(whole, tmp_path / "out")
    before = Store(root).manifest()
    harm(root / "manifest.json")
    manifest = run(tiny, Store(root), "again")
    assert ("manifest.json is damaged" in capsys.readouterr().err) == (harm is not os.unlink)
    assert trained.runs == [] and parts(root) == parts(whole)
    for key in ("experiment_hash", "methods", "seeds", "frames"):
        assert manifest[key] == before[key]


def test_a_damaged_manifest_of_a_folder_that_may_be_anothers_is_left(tiny, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "out")
    truncate(root / "manifest.json")
    for path in root.glob("parts/runs-*"):
        path.unlink()
    with pytest.raises(Damaged, match=r"manifest\.json"):
        run(tiny, Store(root), "again")


def test_no_changed_digit_of_a_sealed_object_goes_unnoticed(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"a": [1.5, float("inf")], "b": {"ü": "x"}, "c": (1, 2), "d": {3: None}})
    value = read_json(path)
    assert value == {"a": [1.5, float("inf")], "b": {"ü": "x"}, "c": [1, 2], "d": {"3": None}}
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        try:
            assert read_json(path) == value  # between two entries, say
        except Damaged as error:
            assert str(path) in str(error)
        except AssertionError:
            # Without its mark it counts as one that nobody sealed.
            assert b'"sha256"' not in path.read_bytes()


@pytest.mark.parametrize(
    ("call", "after"), [("fsync", 1), ("fsync", 4), ("fsync", 6), ("replace", 7), ("fsync", 9)]
)
def test_a_full_disk_costs_nothing_that_was_finished(
    tiny, whole, tmp_path, parts, monkeypatch, call, after
):
    """The disk fills up in the manifest, a checkpoint, policies, curves, records; then is free."""
    root = shutil.copytree(whole, tmp_path / "out")
    (root / "parts").joinpath(next(n for n in parts(whole) if n.startswith("runs"))).unlink()
    before, wanted = parts(root), parts(whole)
    real, calls = getattr(os, call), []

    def full(*args):
        calls.append(args)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(EntrobError, match="the disk is full") as error:
            run(tiny, Store(root), "full")
    assert "\n" not in str(error.value)
    assert not list(root.rglob("*.tmp"))
    left = parts(root)
    for name, data in left.items():
        assert name.startswith("checkpoint") or data == wanted[name]
    assert before.keys() <= left.keys()
    run(tiny, Store(root), "room")
    assert parts(root) == wanted


def test_a_full_disk_ends_the_command_with_one_line(tiny_file, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as exit:
        cli.main(["run", str(tiny_file), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and "disk is full" in error
    assert not list(tmp_path.rglob("*.tmp"))
