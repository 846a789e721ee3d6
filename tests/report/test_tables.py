"""Tables over synthetic records: what is averaged, what is left out, how it is written."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.report import latex, markup, tables
from entrob.report.paper import Number, Paper
from entrob.statistics import aggregate, intervals


def pick(table, **where):
    """The one row with the given values."""
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_method_order():
    names = ["state_entropy[paper]", "a_new_one", "state_entropy", "none", "none"]
    names += ["a_new_one[paper]", "state_entropy[reference]"]
    assert tables.method_order(names, Paper()) == [
        "none",
        "state_entropy",
        "a_new_one",
        "state_entropy[paper]",
        "state_entropy[reference]",
        "a_new_one[paper]",
    ]


def test_method_order_is_the_files_and_counts_numbers():
    names = ["8 rollouts", "32 rollouts", "16 rollouts", "distilled", "16 rollouts[paper]"]
    order = ["8 rollouts", "16 rollouts", "32 rollouts", "distilled", "16 rollouts[paper]"]
    assert tables.method_order(names, Paper()) == order
    declared = Paper(methods=("distilled", "32 rollouts", "16 rollouts[paper]", "8 rollouts"))
    order = ["distilled", "32 rollouts", "16 rollouts", "8 rollouts", "16 rollouts[paper]"]
    assert tables.method_order(names, declared) == order


def test_headline_magnitude_is_the_papers_or_the_largest(make_frames, minigrid):
    magnitudes = {"wall": (0, 6, 8), "elbow": (0, 2), "slip": (0, 0.1, 0.4)}
    _, _, evaluation = make_frames(perturbations=magnitudes)
    found = {name: tables.headline_magnitude(evaluation, name, minigrid) for name in magnitudes}
    assert found == {"wall": 6, "elbow": 2, "slip": 0.4}


def test_success_table(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    table = tables.success_table(runs, evaluation, minigrid)
    rows = evaluation.query("perturbation == 'wall' and magnitude == 6 and method == 'none'")
    row = pick(table, perturbation="wall", method="none")
    assert row["magnitude"] == 6 and row["seeds"] == 8 and row["diverged"] == 0
    assert row["success"] == pytest.approx(rows["success"].mean())
    mean, low, high = intervals.t_interval(rows["success"], bounds=(0, 1))
    assert (row["success_low"], row["success_high"]) == (low, high) and low < mean < high
    assert row["success_iqm"] == aggregate.interquartile_mean(rows["success"])
    assert row["success_iqm_low"] < row["success_iqm"] < row["success_iqm_high"]
    assert row["exact_worst"] < row["exact_cvar"] < row["exact_success"]
    slip = pick(table, perturbation="slip", method="none")
    assert np.isnan(slip[["exact_success", "exact_worst", "exact_cvar"]].astype(float)).all()
    assert list(dict.fromkeys(table["perturbation"])) == [
        *("wall", "random_walls", "goal_shift", "elbow", "slip")
    ]


def test_diverged_runs_are_counted_and_left_out(make_frames, minigrid):
    runs, curves, evaluation = make_frames(diverged=[("none", 2)])
    rows = evaluation.query(
        "perturbation == 'wall' and magnitude == 6 and method == 'none' and seed != 2"
    )
    row = pick(tables.success_table(runs, evaluation, minigrid), perturbation="wall", method="none")
    assert (row["seeds"], row["diverged"]) == (7, 1)
    assert row["success"] == pytest.approx(rows["success"].mean())
    nominal = pick(tables.nominal_table(runs, curves, evaluation, minigrid), method="none")
    assert (nominal["seeds"], nominal["diverged"]) == (7, 1)
    assert np.isfinite(nominal["training_return"])
    improved = tables.difference_table(runs, evaluation, minigrid)
    against = improved[improved["baseline"] == "none"]
    assert set(against["pairs"]) == {7}


def test_a_method_of_which_every_run_diverged_keeps_its_row(make_frames, minigrid):
    lost = [("state_entropy", seed) for seed in range(8)]
    runs, curves, evaluation = make_frames(diverged=lost)
    # A store may leave such runs unevaluated.
    evaluation = tables.finished(runs, evaluation)
    for table in (
        tables.success_table(runs, evaluation, minigrid),
        tables.robustness_table(runs, evaluation, minigrid),
        tables.nominal_table(runs, curves, evaluation, minigrid),
    ):
        rows = table[table["method"] == "state_entropy"]
        assert len(rows) and set(rows["seeds"]) == {0} and set(rows["diverged"]) == {8}
    improved = tables.difference_table(runs, evaluation, minigrid)
    rows = improved[improved["method"] == "state_entropy"]
    assert rows["difference"].isna().all() and not rows["differs"].any()


def test_nominal_table(make_frames, minigrid):
    runs, curves, evaluation = make_frames(points=20)
    row = pick(tables.nominal_table(runs, curves, evaluation, minigrid), method="policy_entropy")
    assert row["success"] == 1 and np.isnan(row["success_low"])  # all seeds agree
    tail = curves.query("method == 'policy_entropy' and frames > 2_700_000")["return_mean"]
    assert len(tail) == 8 * 2
    assert row["training_return"] == pytest.approx(tail.mean())


def test_robustness_table(make_frames, minigrid):
    runs, _, evaluation = make_frames(spread=0)
    evaluation["success"] = np.where(evaluation["magnitude"] > 4, 0.0, 1.0)
    row = pick(
        tables.robustness_table(runs, evaluation, minigrid), perturbation="wall", method="none"
    )
    assert row["area"] == pytest.approx(0.625)  # 1 up to 4 of 8, then a slope down to 6
    assert (row["lowest"], row["magnitudes"], row["largest"]) == (0, 5, 8)
    assert 0 <= row["exact_worst"] < row["exact_area"] < 1


def test_single_magnitude_has_no_area(make_frames, minigrid):
    runs, _, evaluation = make_frames(perturbations={"wall": (6,)})
    row = pick(tables.robustness_table(runs, evaluation, minigrid), method="none")
    assert np.isnan(row["area"]) and np.isnan(row["exact_area"]) and np.isfinite(row["lowest"])


def test_one_seed_has_no_interval(make_frames, minigrid):
    runs, curves, evaluation = make_frames(seeds=[3])
    row = pick(tables.success_table(runs, evaluation, minigrid), perturbation="wall", method="none")
    assert np.isfinite(row["success"]) and np.isfinite(row["success_iqm"])
    assert np.isnan([row["success_low"], row["success_iqm_low"], row["success_iqm_high"]]).all()
    improved = tables.difference_table(runs, evaluation, minigrid)
    assert improved["difference_low"].isna().all() and not improved["differs"].any()
    text = markup.markdown(tables.nominal_table(runs, curves, evaluation, minigrid))
    assert "[–, –]" in text and "nan" not in text


def test_difference_table(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    # Shuffled rows: the pairing may not lean on their order.
    shuffled = evaluation.sample(frac=1, random_state=0)
    table = tables.difference_table(runs, shuffled, minigrid)
    pd.testing.assert_frame_equal(table, tables.difference_table(runs, evaluation, minigrid))
    row = pick(table, perturbation="wall", method="state_entropy", baseline="none")
    assert row["probability"] == 1 and row["differs"] and row["pairs"] == 8
    assert 0 < row["difference_low"] < row["difference"] < row["difference_high"]
    assert not ((table["method"] == "none") | (table["method"] == table["baseline"])).any()


def test_difference_pairs_common_seeds_and_needs_six(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    kept = runs[(runs["method"] != "none") | (runs["seed"] < 5)]
    table = tables.difference_table(kept, evaluation, minigrid)
    row = pick(table, perturbation="wall", method="state_entropy", baseline="none")
    # Five wins of five: yet five coins fall alike 1 time in 16.
    assert (row["probability"], row["pairs"]) == (1, 5) and np.isnan(row["difference_low"])
    assert not row["differs"]


def test_missing_methods_and_baselines(make_frames, minigrid):
    runs, _, evaluation = make_frames(rates={"state_entropy": 0.7})
    assert len(tables.difference_table(runs, evaluation, minigrid)) == 0
    assert set(tables.success_table(runs, evaluation, minigrid)["method"]) == {"state_entropy"}


def test_two_runs_of_a_method_with_one_seed_are_refused(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    twin = evaluation[evaluation["run_id"] == "none-1"].assign(run_id="none-1b")
    runs = pd.concat([runs, runs[runs["run_id"] == "none-1"].assign(run_id="none-1b")])
    with pytest.raises(EntrobError, match=r"none.*one seed"):
        tables.success_table(runs, pd.concat([evaluation, twin]), minigrid)


def test_without_baselines_the_first_method_is_the_baseline(make_frames, minigrid):
    runs, _, evaluation = make_frames(rates={"8 rollouts": 0.5, "4 rollouts": 0.2})
    table = tables.difference_table(runs, evaluation, minigrid)
    assert set(table["baseline"]) == {"4 rollouts"} and set(table["method"]) == {"8 rollouts"}


def test_tables_without_exact_columns(make_frames, pusher):
    runs, _, evaluation = make_frames(perturbations={"wall": (0, 1)}, exact=False)
    for table in (
        tables.success_table(runs, evaluation, pusher),
        tables.robustness_table(runs, evaluation, pusher),
    ):
        assert len(table) == 3 and not any(name.startswith("exact") for name in table)


def pusher_frames(make_frames, **kwargs):
    kwargs = {"perturbations": {"wall": (0, 1, 2)}, "exact": False, "seeds": range(6)} | kwargs
    runs, _, evaluation = make_frames(**kwargs)
    return runs, evaluation


def test_numbers_table(make_frames, pusher):
    runs, evaluation = pusher_frames(make_frames, diverged=[("none", 0)])
    at = (evaluation["perturbation"] == "wall") & (evaluation["magnitude"] == 1)
    mine = at & (evaluation["method"] == "state_entropy")
    evaluation.loc[mine, "success"] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    evaluation.loc[at & (evaluation["method"] == "none"), "success"] = 0.9
    table = tables.numbers_table(runs, evaluation, pusher)
    assert len(table) == 6 and list(table["condition"]) == ["nominal"] * 3 + ["wall"] * 3
    row = pick(table, condition="wall", method="state_entropy")
    assert row["ours"] == pytest.approx(0.35)
    assert row["ours_std"] == pytest.approx(np.std([1, 2, 3, 4, 5, 6], ddof=1) / 10)
    assert (row["ours_n"], row["paper"], row["paper_std"], row["paper_n"]) == (6, 0.363, 0.317, 20)
    assert row["difference"] == pytest.approx(-0.013) and row["verdict"] == "compatible"
    none = pick(table, condition="wall", method="none")
    assert none["ours_n"] == 5 and none["verdict"] == "differs"  # without the run that diverged
    nominal = pick(table, condition="nominal", method="policy_entropy")
    assert (nominal["magnitude"], nominal["ours"], nominal["paper"]) == (0, 1, 0.938)
    text = markup.markdown(table)
    assert "| ours ± s | ours, n | paper ± s | paper, n | difference [95 %] | verdict |" in text
    assert "| 0.350 ± 0.187 | 6 | 0.363 ± 0.317 | 20 | -0.013 [" in text
    assert r"0.35 $\pm$ 0.19" in latex.latex(table, "", "numbers", tables.SHORT["numbers"])


def test_numbers_are_compared_only_where_they_can_be(make_frames, pusher):
    runs, evaluation = pusher_frames(make_frames, seeds=[0], perturbations={"wall": (0, 2)})
    table = tables.numbers_table(runs, evaluation, pusher)
    assert set(table.query("condition == 'nominal'")["verdict"]) == {"too few seeds"}
    assert set(table.query("condition == 'wall'")["verdict"]) == {"not tested"}
    assert "nan" not in markup.markdown(table)
    assert tables.numbers_table(runs, evaluation, Paper()).empty
    unsaid = dataclasses.replace(pusher, numbers={"none": {"nominal": Number(0.9)}})
    (row,) = tables.numbers_table(*pusher_frames(make_frames), unsaid).itertuples()
    assert row.verdict == "no spread" and row.difference == pytest.approx(0.1)
    text = markup.markdown(tables.numbers_table(*pusher_frames(make_frames), unsaid))
    assert "| 0.900 ± – | – | 0.100 [–, –] | no spread |" in text


def test_markdown_escapes_and_says_what_stands_beside_a_value():
    frame = pd.DataFrame({"method": ["a|b_c & 50%\\", "x"], "score": [1.0, np.nan], "n": [3, 4]})
    frame["score_std"] = [0.25, np.nan]
    assert markup.markdown(frame, "A caption.") == (
        "| method | score ± s | n |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b_c & 50%\\ | 1.000 ± 0.250 | 3 |\n"
        "| x | – ± – | 4 |\n"
        "\nA caption.\n"
    )


def test_write_tables_round_trip(make_frames, tmp_path, minigrid):
    runs, curves, evaluation = make_frames()
    frames = {
        "nominal": tables.nominal_table(runs, curves, evaluation, minigrid),
        "success": tables.success_table(runs, evaluation, minigrid),
    }
    tables.write_tables(frames, tmp_path / "tables", {"nominal": "Nominal."})
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {f"{name}.{end}" for name in frames for end in ("md", "csv", "tex")}
    text = (tmp_path / "tables" / "success.csv").read_text()
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), frames["success"])
    assert (tmp_path / "tables" / "nominal.md").read_text().endswith("\nNominal.\n")


def test_a_table_that_cannot_be_written_is_one_error(make_frames, tmp_path, minigrid):
    runs, _, evaluation = make_frames()
    (tmp_path / "tables").write_text("in the way")
    frames = {"success": tables.success_table(runs, evaluation, minigrid)}
    with pytest.raises(EntrobError, match=r"cannot write .*success\.md"):
        tables.write_tables(frames, tmp_path / "tables")
    assert (tmp_path / "tables").read_text() == "in the way"
