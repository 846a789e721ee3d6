"""A folder: what is removed, what is drawn again, and who may work in it."""

import shutil
import subprocess
import sys

import pytest

from entrob import cli
from entrob.errors import EntrobError
from entrob.persistence.drawings import drawings, redrawn
from entrob.persistence.lock import locked
from entrob.persistence.store import DRAWN, Damaged, Store, read_json, write_bytes, write_json
from entrob.sweep.runner import run

pytestmark = pytest.mark.usefixtures("sketched")


def test_no_resume_removes_what_the_store_names_and_nothing_else(whole, tmp_path):
    store = Store(shutil.copytree(whole, tmp_path / "out"))
    mine = ["notes.txt", "parts/runs-of-mine.txt", "tables/own.csv", "figures/own.png"]
    with redrawn(store.root):
        write_bytes(store.root / "tables" / "success.md", b"")
        write_bytes(store.root / "report.md", b"")
    for name in mine:
        write_bytes(store.root / name, b"mine")
    (store.root / "parts" / ".runs-0123456789abcdef.parquet.17.tmp").touch()  # of a killed process
    store.clear(drawings(store.root))
    left = {p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file()}
    assert left == {*mine, "manifest.json", ".lock"}
    assert store.manifest() == {"experiment": "tiny"}


def test_no_resume_begins_anew_beside_what_is_the_users(tiny, whole, tmp_path, trained, parts):
    root = shutil.copytree(whole, tmp_path / "out")
    (root / "notes.txt").write_text("mine")
    run(tiny, Store(root), "anew", test=False, resume=False)
    assert len(trained.runs) == 4 and (root / "notes.txt").read_text() == "mine"
    kept = {n for n in parts(whole) if n.startswith(("runs", "curves", "policies"))}
    assert parts(root) == {n: b for n, b in parts(whole).items() if n in kept}


def test_no_resume_leaves_the_folder_of_another_experiment_alone(tiny, whole, tmp_path, parts):
    root = shutil.copytree(whole, tmp_path / "out")
    store = Store(root)
    write_json(store.manifest_path, {**store.manifest(), "experiment": "another"})
    with pytest.raises(EntrobError, match="made by another experiment"):
        run(tiny, store, "anew", resume=False)
    assert parts(root) == parts(whole)


def test_a_drawing_that_is_not_drawn_again_is_removed(tmp_path):
    with redrawn(tmp_path):
        for name in ("report.md", "figures/occupancy.png", "figures/bars.png"):
            write_bytes(tmp_path / name, b"")
    (tmp_path / "figures" / "mine.png").touch()
    with redrawn(tmp_path):
        write_bytes(tmp_path / "figures" / "bars.png", b"")
    assert {p.name for p in tmp_path.rglob("*.*")} == {"bars.png", "mine.png", DRAWN}
    with pytest.raises(ZeroDivisionError), redrawn(tmp_path):
        write_bytes(tmp_path / "report.md", b"")
        raise ZeroDivisionError
    assert {p.name for p in drawings(tmp_path)} == {"report.md", "bars.png"}  # both are ours


@pytest.mark.parametrize("text", ["{", "{}", '["../up.txt", "/etc/passwd", 3]'])
def test_a_list_of_drawings_that_is_none_names_nothing(tmp_path, text):
    (tmp_path / DRAWN).write_text(text)
    assert drawings(tmp_path) == []


@pytest.mark.parametrize("kind", ["occupancy", "curves"])
def test_a_part_that_is_missing_is_made_again(tiny, whole, tmp_path, parts, trained, kind):
    root = shutil.copytree(whole, tmp_path / "out")
    next(root.glob(f"parts/{kind}-*")).unlink()
    run(tiny, Store(root), "again")
    assert parts(root) == parts(whole)
    assert len(trained.runs) == (4 if kind == "curves" else 0)


def test_a_report_without_curves_is_refused_and_one_without_occupancy_shows_none(whole, tmp_path):
    """The figure was left behind, beside a page that had no such section any more."""
    root = shutil.copytree(whole, tmp_path / "out")
    cli.commands.write_run_report(Store(root))
    assert (root / "figures" / "occupancy.png").exists()
    for path in root.glob("parts/occupancy-*"):
        path.unlink()
    page = cli.commands.write_run_report(Store(root)).read_text()
    assert "Occupancy" not in page and not (root / "figures" / "occupancy.png").exists()
    next(root.glob("parts/curves-*")).unlink()
    with pytest.raises(Damaged, match=r"curves-.*is missing; the command that made it"):
        cli.commands.write_run_report(Store(root))


HOLD = """
import sys, pathlib
from entrob.persistence.lock import locked
with locked(pathlib.Path(sys.argv[1]), alone=sys.argv[2] == "alone"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("first", "second"), [("alone", False), ("shared", True)])
def test_who_is_to_be_alone_is_refused_until_the_other_is_gone(tmp_path, first, second):
    """It is killed, so that nothing of its own can let go."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), first]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        refused = pytest.raises(EntrobError, match=f"in use by process {process.pid} on .*: wait")
        with refused, locked(tmp_path, alone=second):
            raise AssertionError("both have it")
        process.kill()
    with locked(tmp_path, alone=True) as lock:
        lock.share()
        with locked(tmp_path):
            pass


def test_a_folder_that_is_in_use_is_left_as_it_is(tiny, whole, tmp_path, parts, monkeypatch):
    root = shutil.copytree(whole, tmp_path / "out")
    next(root.glob("parts/evaluation-*")).unlink()
    before = parts(root), read_json(root / "manifest.json")
    with locked(root), pytest.raises(EntrobError, match="is in use by"):
        run(tiny, Store(root), "second", resume=False)
    assert (parts(root), read_json(root / "manifest.json")) == before
