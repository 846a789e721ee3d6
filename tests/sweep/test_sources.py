"""A run is what its code is, too: an edit of one's own code does not leave old numbers behind."""

import dataclasses
import shutil
import sys

import pandas as pd
import pytest

import entrob
from entrob import cli
from entrob.persistence.store import Store, read_frame, write_frame
from entrob.perturbations import perturbations
from entrob.perturbations.base import Perturbation
from entrob.regularizers import regularizers
from entrob.sweep import groups, measure, reading, sources, stored
from entrob.sweep.experiment import Method
from entrob.sweep.groups import known_ids, run_id, run_of, runs_of
from entrob.sweep.sources import UNVERSIONED, code_of, digest_of

#: Of the tiny experiment's methods, and of the first full-length run of Pusher.
PINNED = ["bddaf19d6c9bf775", "d43d1c4cbc8689bd"]
PUSHER = "412f8d6b709742e8"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Function ``files by name -> digest`` of the module ``mine`` in a folder with these files."""

    def make(files, name="mine", folder="a"):
        root = tmp_path / folder
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        fake = type(sys)(name)
        fake.__file__ = str(root.joinpath(*name.split(".")).with_suffix(".py"))
        monkeypatch.setitem(sys.modules, name, fake)
        digest_of.cache_clear()
        return digest_of(name)

    yield make
    digest_of.cache_clear()


FILES = {
    "mine.py": "import numpy, entrob\nfrom helper import f\nimport pack.inner\n",
    "helper.py": "import deep\n",
    "deep.py": "x = 1\n",
    "pack/__init__.py": "",
    "pack/inner.py": "from . import beside\nfrom .beside import y\n",
    "pack/beside.py": "y = 1\n",
    "unrelated.py": "",
    "numpy/__init__.py": "",  # a package of that name is known by its version
}


@pytest.mark.parametrize("name", ["mine.py", "helper.py", "deep.py", "pack/__init__.py",
                                  "pack/inner.py", "pack/beside.py"])  # fmt: skip
def test_an_edit_of_what_is_imported_from_beside_is_another_code(module, name):
    assert module(FILES) != module(FILES | {name: FILES[name] + "# edited\n"})


def test_other_files_other_folders_and_other_packages_do_not_matter(module):
    before = module(FILES)
    assert module(FILES | {"unrelated.py": "x", "numpy/__init__.py": "x"}) == before
    assert module(FILES, folder="elsewhere") == before
    assert len(before) == 16 and before != module({"mine.py": ""}, folder="b")


def test_a_module_of_a_package_and_one_with_a_syntax_error(module):
    files = {"lab/__init__.py": "", "lab/own.py": "from lab.util import f", "lab/util.py": ""}
    before = module(files, "lab.own")
    assert module(files | {"lab/util.py": "def f(): pass"}, "lab.own") != before
    assert module({"mine.py": "def"}, folder="odd")  # what does not parse is its bytes


def test_what_is_typed_into_a_console_has_no_version():
    assert digest_of("no_such_module") == UNVERSIONED


@pytest.fixture
def edited(monkeypatch):
    """Function that makes the code of a method's training another."""

    def edit(method, version):
        real = code_of
        other = lambda e, m: (version,) if m.name == method else real(e, m)
        monkeypatch.setattr(groups, "code_of", other)

    return edit


def test_runs_of_entrobs_own_code_are_called_what_they_always_were(tiny):
    """Folders of earlier versions are read: these are from the commit before sources counted."""
    assert [run_id(tiny, method, 1) for method in tiny.methods] == PINNED
    for method in tiny.methods:
        assert code_of(tiny, method) == () and run_of(tiny, method, 0).earlier == ""
    pusher = reading.load("pusher", "paper")
    (state,) = (m for m in pusher.methods if m.name == "state_entropy")
    assert run_id(pusher, state, 0) == PUSHER


def test_every_method_of_entrobs_is_its_own(tiny):
    for name in regularizers.names():
        if not regularizers.get(name).__module__.startswith(("entrob.", "entrob")):
            continue
        assert code_of(tiny, Method(name, coefficients={name: 0.1})) == (), name


def test_numerics_that_change_are_other_runs(tiny, monkeypatch):
    before = run_of(tiny, tiny.methods[0], 0)
    for module in (sources, groups):
        monkeypatch.setattr(module, "NUMERICS", 2)
    after = run_of(tiny, tiny.methods[0], 0)
    assert after.id != before.id and after.earlier == "" and after.code == "2-numerics 2"


def test_code_of_ones_own_is_found(tiny, monkeypatch):
    """Of a regularizer, a perturbation that is trained under, and one that is tested under."""

    @entrob.regularizer("tests_own", coef=1.0)
    def tests_own(policy, coef):
        return coef * policy.value.mean()

    def shift(key, params, magnitude):
        return params

    entry = Perturbation("tests_shift", shift, requires=("walls",))
    monkeypatch.setitem(perturbations._entries, "tests_shift", (entry,))
    try:
        own = digest_of(__name__)
        assert own != UNVERSIONED
        for method in (
            Method("mine", coefficients={"tests_own": 1.0}),
            Method("trained", training={"tests_shift": 0.5}),
            Method("drawn", randomize={"tests_shift": [0.0, 0.5]}),
            Method("mixed", mixture=[["tests_shift", 0.5, 1.0]]),
        ):
            assert code_of(tiny, method) == (own,), method
            run = run_of(tiny, method, 0)
            assert run.id != run.earlier and run.code == f"1-{own}"
        assert sources.code_of_test(tiny, "tests_shift") == own
        assert sources.code_of_test(tiny, "wall") == sources.code_of_test(tiny, "nominal") == ""
        tested = dataclasses.replace(tiny, perturbations={"tests_shift": (0.5,), "wall": (8.0,)})
        tester, batch = measure.Tester(tested), groups.RunBatch("0" * 16, None, ())
        assert tester.part(Store("x"), batch, "tests_shift").stem.endswith(f".{own}")
        assert "." not in tester.part(Store("x"), batch, "wall").stem
    finally:
        del regularizers._entries["tests_own"]


def test_an_edit_trains_anew_and_its_own_method_only(tiny, whole, edited):
    """Runs that were made before sources counted stay; those of other sources do not."""
    store = Store(whole)
    unfinished = lambda: [
        run.method.name for g in stored.groups(tiny) for run in stored.missing(tiny, store, g)
    ]
    edited("policy_entropy", "first")
    assert unfinished() == []  # unversioned
    assert stored.superseded(tiny, store, []) == []


def put(store, runs, batch):
    rows = [{"run_id": r.id, "method": r.method.name, "seed": r.seed, "code": r.code} for r in runs]
    write_frame(store.part("runs", batch), pd.DataFrame(rows))


def test_what_is_no_longer_a_methods_is_superseded_until_it_is_again(tiny, tmp_path, edited):
    """A coefficient changed and changed back: two runs of a seed left no report for ever."""
    store = Store(tmp_path)
    old = dataclasses.replace(tiny.methods[1], coefficients={"policy_entropy": 0.5})
    changed = dataclasses.replace(tiny, methods=(tiny.methods[0], old))
    now, before = runs_of(tiny, tiny.methods[1]), runs_of(changed, old)
    put(store, now, "a" * 16)
    put(store, before, "b" * 16)
    assert stored.superseded(tiny, store, []) == sorted(run.id for run in before)
    assert stored.superseded(changed, store, []) == sorted(run.id for run in now)
    # Methods that are not asked for stay what they were.
    alone = dataclasses.replace(tiny, methods=tiny.methods[:1])
    gone = [run.id for run in before]
    assert stored.superseded(alone, store, gone) == sorted(gone)
    edited("policy_entropy", "another")
    assert stored.superseded(tiny, store, []) == sorted(run.id for run in before)
    newest = runs_of(tiny, tiny.methods[1])
    put(store, newest, "c" * 16)
    assert stored.superseded(tiny, store, []) == sorted(run.id for run in (*now, *before))


def test_records_are_those_of_the_current_methods(tiny, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "out")
    store = Store(root)
    rows = read_frame(next(root.glob("parts/runs-*")))
    others = rows.assign(run_id=[f"{i:016x}" for i in range(len(rows))]).drop(columns="code")
    write_frame(store.part("runs", "d" * 16), others)
    write_frame(store.part("curves", "d" * 16), store.gather("curves").head(0))
    assert len(store.gather("runs")) == 8
    gone = stored.superseded(tiny, store, [])
    store.claim({"experiment": tiny.name, "experiment_hash": tiny.hash, "superseded": gone})
    assert set(store.gather("runs").run_id) == set(rows.run_id)
    assert set(store.gather("runs").code) == {"1"}
    assert cli.commands.write_run_report(store).exists()
    store.claim({"experiment": tiny.name, "experiment_hash": tiny.hash, "superseded": []})
    assert set(store.gather("runs").code) == {"1", UNVERSIONED}


def test_earlier_names_are_known(tiny, edited):
    edited("policy_entropy", "first")
    runs = runs_of(tiny, tiny.methods[1])
    known = known_ids(runs)
    assert set(known) == {r.id for r in runs} | {r.earlier for r in runs}
    assert all(known[r.earlier].id == r.earlier and known[r.id] is r for r in runs)


EDITED = """
import entrob


@entrob.regularizer("tests_edited", coef=1.0)
def tests_edited(policy, coef):
    return {factor} * coef * policy.value.mean()
"""


@pytest.mark.slow
def test_an_edit_of_ones_own_regularizer_is_trained_and_reported(tiny_file, tmp_path, monkeypatch):
    import subprocess

    def command(factor):
        (tmp_path / "edited_module.py").write_text(EDITED.format(factor=factor))
        arguments = ["run", str(tiny_file), "--out", "out", "--seeds", "1"]
        arguments += ["--regularizer", "edited_module:tests_edited"]
        done = subprocess.run(
            [sys.executable, "-m", "entrob", *arguments], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return Store(tmp_path / "out").gather("runs").set_index("method")

    one, two, back = command(1), command(2), command(1)
    assert sorted(one.index) == sorted(two.index) == ["none", "tests_edited"]
    assert one.run_id["none"] == two.run_id["none"]
    assert one.run_id["tests_edited"] != two.run_id["tests_edited"]
    assert back.run_id.equals(one.run_id)
