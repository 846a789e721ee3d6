"""From the tables of a suite's tasks to its board: prefixes, few seeds, nothing kept."""

import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.persistence import store
from entrob.persistence.store import Damaged
from entrob.perturbations import perturbations
from entrob.report.leaderboard import write_leaderboard
from entrob.statistics.board import CLASSES
from entrob.suite.assemble import assemble

#: Nominal score, and that behind the wall and under slip.
SCORES = {"none": (1.0, 0.25), "good": (1.0, 0.75), "lost": (0.875, 0.875)}


def tables(loss=True):
    """What a task brings: two seeds of three methods, not calibrated."""
    rows = []
    for method, (nominal, perturbed) in SCORES.items():
        for seed in (0, 1):
            who = {"method": method, "seed": seed}
            price = 1 - nominal
            where = {"perturbation": "nominal", "magnitude": 0.0}
            rows.append({**who, **where, "score": nominal, "price": price})
            for name in ("wall", "slip"):
                score = perturbed + 0.1 * seed if loss else 1.0
                rows.append({**who, "perturbation": name, "magnitude": 1.0, "score": score})
    cells = [
        {"perturbation": name, "magnitude": 1.0, "category": category, "nominal": 1.0}
        | {"none": 0.3 if loss else 1.0, "reference": 1.0}
        for name, category in (("wall", "routes"), ("slip", "action noise"))
    ]
    tuning = [
        {"method": "good", "knob": "coefficient", "coefficient": c, "seed": s, "nominal": 1.0}
        | {"chosen": c == 0.5, "taken": 0.5}
        for c in (0.5, 2.0)
        for s in (0, 1)
    ]
    empty = pd.DataFrame(columns=["method", "seed", "activity", "status"])
    frames = {"scores": rows, "cells": cells, "tuning": tuning}
    return {name: pd.DataFrame(frame) for name, frame in frames.items()} | {"activity": empty}


def folder(root, tasks=("t",), **changes):
    described = {"family": "losses", "label": "paper", "source": "", "coef": 1.0, "doc": "Doc."}
    manifest = {"title": "T", "calibrated": False, "tasks": {t: {"broken": {}} for t in tasks}}
    manifest["methods"] = dict.fromkeys(("good", "lost"), described)
    store.write_json(root / "manifest.json", manifest)
    for task in tasks:
        for name, frame in tables(**changes).items():
            store.write_bytes(root / task / f"{name}.csv", frame.to_csv(index=False).encode())
    return root


def test_weights_are_those_of_the_prefix(tmp_path):
    one = assemble(folder(tmp_path / "one"))
    assert one.cells.weight.tolist() == [1, 1] and one.tasks == ["t"]
    both = assemble(folder(tmp_path / "both", ("t", "u")))
    assert both.cells.weight.tolist() == [0.5] * 4 and both.tasks == ["t", "u"]
    assert (both.cells.gap == both.cells.reference - both.cells.none).all()
    assert both.tuning.chosen.tolist() == [True, True, False, False] * 2
    assert both.activity.empty and list(both.activity) == list(one.activity)


def test_a_board_of_two_seeds_is_written_and_says_what_it_cannot(tmp_path):
    page = write_leaderboard(folder(tmp_path)).read_text()
    assert "Not calibrated" in page and "Activity was not measured" in page
    assert "Undecided: 0 of 0 comparisons" in page and "fewer than 6 pairs" in page
    assert "Ranks have no intervals" in page and "nan" not in page
    assert (tmp_path / "tables" / "scores.csv").exists()
    assert (tmp_path / "figures" / "gains.png").stat().st_size > 5_000


def test_nothing_kept_is_a_board_without_classes(tmp_path, sketched):
    page = write_leaderboard(folder(tmp_path, loss=False)).read_text()
    assert "No method is ranked" in page and "Left out, none loses less than 0.1: t wall 1" in page


def test_what_is_missing_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "t" / "cells.csv").unlink()
    with pytest.raises(Damaged, match=r"cells\.csv is damaged"):
        assemble(tmp_path)
    store.write_json(tmp_path / "manifest.json", {"title": "T", "tasks": {}})
    with pytest.raises(EntrobError, match="holds no finished task yet"):
        assemble(tmp_path)


def test_every_perturbation_has_a_class():
    every = [v for name in perturbations.names() for v in perturbations.variants(name)]
    found = {v.name: v.category for v in every if not v.training_only}
    assert set(found.values()) <= set(CLASSES)
    assert found["wall"] == "routes" and found["observation_dropout"] == "observation noise"
