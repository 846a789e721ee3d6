"""rliable's dictionary: what is where, and what is left out."""

import numpy as np
import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.statistics.score_arrays import score_arrays


def rows():
    found = [
        {"method": method, "seed": seed, "perturbation": name, "magnitude": m}
        | {"success": 100 * place + 10 * seed + m}
        for place, method in enumerate(("none", "b"))
        for seed in (3, 1)
        for name, m in (("wall", 2.0), ("slip", 1.0))
    ]
    return pd.DataFrame(found)


def test_places():
    found = score_arrays(rows().sample(frac=1, random_state=0).sort_values("method", kind="stable"))
    assert set(found.scores) == {"none", "b"}
    for place, method in enumerate(("none", "b")):
        for i, seed in enumerate(found.seeds):
            for j, (_, m) in enumerate(found.conditions):
                assert found.scores[method][i, j] == 100 * place + 10 * seed + m
    one = score_arrays(rows()[lambda x: x.magnitude == 1], by=("perturbation",))
    assert one.conditions == [("slip",)] and one.scores["b"].shape == (2, 1)


def test_arrays_have_no_holes():
    some = rows()
    some = some[~((some.method == "b") & (some.seed == 1) & (some.perturbation == "slip"))]
    found = score_arrays(some)
    assert list(found.seeds) == [3] and found.scores["none"].shape == (1, 2)
    partial = rows()[lambda x: ~((x.method == "b") & (x.perturbation == "slip"))]
    assert list(score_arrays(partial).scores) == ["none"]


def test_what_cannot_be_an_array_is_named():
    with pytest.raises(EntrobError, match="no column score"):
        score_arrays(rows(), "score")
    with pytest.raises(EntrobError, match="two scores"):
        score_arrays(pd.concat([rows(), rows()]))
    nothing = rows().assign(success=np.nan)
    with pytest.raises(EntrobError, match="no seed has a score"):
        score_arrays(nothing)
