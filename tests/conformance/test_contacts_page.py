"""The page on contacts: its code runs, and its tables are those that were measured."""

import importlib.util
import json
import pathlib
import re

import pytest

pytest.importorskip("gymnasium")

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "entrob" / "envs" / "mujoco" / "contacts.md").read_text()


def benchmark():
    spec = importlib.util.spec_from_file_location("contacts", ROOT / "benchmarks" / "contacts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_either_repair_gives_the_puck_the_weights_of_mujoco_2():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        names = {}
        exec(block, names)
        model = names["env"].unwrapped.model
        assert model.body_invweight0[model.body("object").id, 0] == pytest.approx(16.66339, 1e-6)
        for name in ("obj_slidey", "obj_slidex"):
            dof = model.joint(name).dofadr[0]
            assert model.dof_invweight0[dof] == pytest.approx(24.99509, 1e-6)


def test_the_tables_are_what_was_measured():
    measured = json.loads((ROOT / "results" / "contacts.json").read_text())
    module = benchmark()
    rows = [module.way_row(*item) for item in measured["way_m"].items()]
    rows += [module.row(*item) for item in measured["pushes"].items()]
    assert len(rows) == len(module.WAYS) + len(module.REPLAYED) + 3
    for row in rows:
        assert row in PAGE
