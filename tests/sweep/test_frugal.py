"""What a run asks for is asked for once."""

import collections
import shutil
import subprocess

from entrob import cli, envs
from entrob.persistence import provenance, store
from entrob.sweep import runner


def test_a_run_builds_reads_and_asks_once(tiny_file, tmp_path, monkeypatch, sketched):
    built, read, asked = [], collections.Counter(), []
    build, read_frame, run = envs.build, store.read_frame, subprocess.run

    def counted(path):
        read[path.name] += 1
        return read_frame(path)

    monkeypatch.setattr(envs, "build", lambda id, **o: built.append(id) or build(id, **o))
    monkeypatch.setattr(store, "read_frame", counted)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: asked.append(a) or run(*a, **k))
    provenance.provenance.cache_clear()
    cli.main(["run", str(tiny_file), "--out", str(tmp_path / "out")])
    assert built == ["minigrid/empty-8x8"]
    assert len(asked) == 1 and asked[0][0][0] == "git"
    # Of each batch and kind, when the records are gathered and the report is drawn.
    assert set(read.values()) == {1}
    assert set(read) == {path.name for path in (tmp_path / "out" / "parts").glob("*.parquet")}


def test_a_finished_run_checks_its_policies_once(whole, tiny, tmp_path, monkeypatch):
    checked, read_sealed = collections.Counter(), store.read_sealed
    root = shutil.copytree(whole, tmp_path / "out")

    def counted(path):
        checked[path.name] += 1
        return read_sealed(path)

    monkeypatch.setattr(store, "read_sealed", counted)
    runner.run(tiny, store.Store(root), "entrob run tiny")
    assert checked and checked == {p.name: 1 for p in (root / "parts").glob("policies-*")}
