"""The numbers that pages quote are those of the committed artifacts."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
SPEED = "benchmarks/speed/README.md"
MINIGRID = "results/minigrid/README.md"


def text(page: str) -> str:
    return (ROOT / page).read_text()


def plain(page: str) -> str:
    """A page without emphasis."""
    return text(page).replace("**", "")


# Figure 4.

CONDITIONS = {
    "wall, 6 cells": ("wall", 6),
    "random walls, 7": ("random_walls", 7),
    "goal shift, 7": ("goal_shift", 7),
    "elbow, 5": ("elbow", 5),
}
METHODS = ["none", "policy_entropy", "state_entropy"]


def number(row: pd.Series) -> str:
    """A success rate with its band, as the pages print it."""
    band = f" ± {row.success_band:.3f}" if row.success_band else ""
    return f"{row.success:.3f}{band}"


@pytest.mark.parametrize("page", ["README.md", MINIGRID])
def test_the_table_of_figure_4_is_the_exported_one(page):
    tables = RESULTS / "minigrid" / "paper" / "tables"
    nominal = pd.read_csv(tables / "nominal.csv").set_index("method")
    rows = ["| nominal | " + " | ".join(number(nominal.loc[m]) for m in METHODS) + " |"]
    success = pd.read_csv(tables / "success.csv").set_index(["perturbation", "magnitude", "method"])
    for name, at in CONDITIONS.items():
        rows.append(f"| {name} | " + " | ".join(number(success.loc[(*at, m)]) for m in METHODS))
    for row in rows:
        assert row in plain(page)


def test_the_claims_beside_the_paper_are_the_exported_ones():
    table = pd.read_csv(RESULTS / "minigrid" / "paper" / "tables" / "paper.csv")
    short = {"none": "none", "policy_entropy": "policy", "state_entropy": "state"}
    own = table[table["first"].isin(METHODS) & table["second"].isin(METHODS)]
    own = own[own.claim != "–"]
    assert len(own) == 8
    for row in own.itertuples():
        what = row.perturbation.replace("_", " ")
        spread = f" [{row.probability_low:.2f}, {row.probability_high:.2f}]"
        said = f"P = {row.probability:.2f}{spread if row.probability_low < 1 else ''}"
        line = f"| {what}: {short[row.first]} {row.claim} {short[row.second]} | {said} | "
        assert line + row.verdict in plain(MINIGRID)
    counts = own.verdict.value_counts()
    assert (counts["agrees"], counts["undecided"], counts["disagrees"]) == (6, 1, 1)
    assert "of the eight claims in that order six agree with ours, one is undecided and one" in (
        text("README.md")
    )


def test_text_against_code_is_the_exported_table():
    tables = RESULTS / "minigrid_fidelity" / "paper" / "tables"
    wall = pd.read_csv(tables / "success.csv").query("perturbation == 'wall'").set_index("method")
    columns = {
        "nothing": ("state_entropy[paper]", "state_entropy[reference]"),
        "bonus added after GAE": ("text + bonus after GAE", "code - bonus after GAE"),
        "the code's normalizer": ("text + code's normalizer", "code - code's normalizer"),
        "one moving environment": (
            "text + one moving environment",
            "code - one moving environment",
        ),
        "time-discounted reward": ("text + discounted reward", "code - discounted reward"),
    }
    for name, (first, second) in columns.items():
        row = f"| {name} | {number(wall.loc[first])} | {number(wall.loc[second])} |"
        assert row in plain(MINIGRID)
    assert f"α = 0.01 has {number(wall.loc['policy_entropy[paper]'])} here" in plain(MINIGRID)


def test_what_minigrid_says_in_prose_is_exported():
    page = plain(MINIGRID)
    tables = RESULTS / "minigrid" / "paper" / "tables"
    success = pd.read_csv(tables / "success.csv").set_index(["perturbation", "method"]).success
    nominal = pd.read_csv(tables / "nominal.csv").set_index("method").success
    assert f"nominal success is {nominal['state_entropy[paper]']:.3f}" in page
    reference = [success["wall", f"{m}[reference]"] for m in ("state_entropy", "policy_entropy")]
    assert "wall {:.3f} against {:.3f}".format(*reference) in page
    for name in ("wall", "random_walls"):
        assert f"{success[name, 'policy_entropy']:.3f}" in page
        assert f"{success[name, 'policy_entropy[paper]']:.3f}" in page
    tune = json.loads((RESULTS / "minigrid" / "tune" / "manifest.json").read_text())
    cost = f"({tune['frames'] // 10**6} million frames, {tune['train_time_s']:.0f} s of training"
    assert cost in page


# The leaderboard, and the simulated coverage.


def test_what_is_said_of_lava_crossing_is_in_the_boards_tables():
    page = " ".join(plain("results/leaderboard/README.md").split())
    folder = RESULTS / "leaderboard" / "standard"
    board = pd.read_csv(folder / "tables" / "leaderboard.csv").set_index("method")
    classes = ["routes", "random walls", "shifts", "action noise", "observation noise"]
    shown = {"KL": "kl", "policy entropy": "policy_entropy", "EPO": "epo"}
    shown |= {"Tsallis entropy": "tsallis", "state entropy": "state_entropy", "APT": "apt"}
    shown |= {"ORPO (KL)": "orpo_kl", "*domain randomization*": "domain_randomization"}
    printed = (folder / "leaderboard.md").read_text("utf-8")
    for name, method in {**shown, "*placebo reward*": "placebo_reward"}.items():
        row = board.loc[method]
        (line,) = (
            x for x in printed.splitlines() if x.startswith("| ") and f" | {method} | " in x[:40]
        )
        cells = [cell.strip() for cell in line.split("|")[7:12]]
        assert [cell.split()[0] for cell in cells] == [f"{row[c]:.2f}" for c in classes]
        overall = f"{row.overall:.2f} [{row.overall_low:.2f}, {row.overall_high:.2f}]"
        assert f"| {name} | {' | '.join(cells)} | {overall} |" in page
    ranked = board[board["rank"].notna()]
    assert ranked["rank"].idxmin() == "kl" and len(ranked) == 31
    assert list(ranked.index[(ranked[classes] > 0.2).all(axis=1)]) == ["kl"]
    placebos = board.overall[["placebo_reward", "placebo_loss"]]
    assert "The placebos recover {:.2f} and {:.2f} overall".format(*placebos) in page
    (undecided,) = re.findall(r"Undecided: (\d+ of \d+) comparisons", printed)
    assert f"Undecided are {undecided} comparisons" in page
    (task,) = json.loads((folder / "manifest.json").read_text())["tasks"].values()
    tuned = task["open"]
    assert f"Of {sum(tuned.values())} of the {len(tuned)} tuned methods" in page
    for name in ("policy_entropy", "state_entropy"):
        assert f"{name.replace('_', ' ')} at {task['coefficients'][name]}" in page
    tuning = pd.read_csv(folder / "tables" / "tuning.csv").query("method == 'none'").nominal
    assert (tuning < 0.5).sum() == 1 and len(tuning) == 10
    assert f"of a nominal score of {tuning.mean():.2f}" in page
    assert f"may lose is {1 - 0.97 * tuning.mean():.0%}".replace("%", " %") in page


def test_what_is_said_of_coverage_is_in_its_tables():
    page = text("results/README.md")
    table = pd.read_csv(RESULTS / "coverage" / "coverage.csv")
    worst = table.coverage.idxmin()
    assert table.law[worst] == "lognormal, σ = 1" and table.tasks[worst] == 1
    assert f"{table.coverage[worst]:.3f}" in page
    others = table.coverage.drop(worst)
    assert f"{others.min():.2f} to {others.max():.2f} of the 95 %" in page
    family = pd.read_csv(RESULTS / "coverage" / "family_error.csv")["family error"]
    assert f"{family.min() * 100:.0f} to {family.max() * 100:.0f} %" in page


# The theory.


def test_the_theorys_tables_are_the_exported_ones():
    page = plain("entrob/theory/README.md")
    tables = RESULTS / "theory" / "tables"
    statements = pd.read_csv(tables / "statements.csv")
    for name in ("Theorem 3.3", "A.4.1"):
        row = statements[statements.statement == name].iloc[0]
        spread = f"{row.tightness:.2f} [{row.tightness_low:.2f}, {row.tightness_high:.2f}]"
        assert f"| never above it | {spread} |" in page
    row = statements[statements.claim.str.startswith("n = 256") & statements.tightness.gt(0)].iloc[
        0
    ]
    spread = f"{row.tightness:.2f} [{row.tightness_low:.2f}, {row.tightness_high:.2f}]"
    assert f"A.2: {spread}" in page
    claimed = statements[statements.claimed]
    assert (claimed.violations == 0).all() and "None of those that we claim was violated" in page
    manifest = json.loads((RESULTS / "theory" / "manifest.json").read_text())
    assert f"It takes {manifest['wall_time_s']:.0f} s on two" in page
    found = (
        pd.read_csv(tables / "recovery.csv")
        .set_index(["form", "change", "regularizer"])
        .sort_index()
    )
    for adversary, form in (("any 16 pairs", "unstructured"), ("any 4 states", "structured")):
        three = found.loc[form, "reward"]
        shares = [three.recovered[name] for name in ("policy", "state", "state_action")]
        gain = three["robust gain"].iloc[0]
        row = " | ".join([f"{gain:.3f}", *(f"{share:.2f}" for share in shares)])
        assert f"| rewards of {adversary} fall by 1 | {row} |" in page
    kernels = [f"kernel ({name})" for name in ("TV", "KL", "χ²")]
    for words, form in (
        ("every row within TV", "unstructured"),
        ("8 shared factors", "structured"),
    ):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {words}")]
        for cell, name in zip(line.split("|")[3:6], ("policy", "state", "state_action")):
            shown = [float(x.replace("−", "-")) for x in cell.split("/")]
            exact = [found.loc[(form, kernel, name)].recovered for kernel in kernels]
            assert shown == pytest.approx(exact, abs=0.0051)


def test_the_fitted_slopes_are_the_exported_ones():
    page = text("entrob/theory/README.md")
    slopes = pd.read_csv(RESULTS / "theory" / "tables" / "estimation.csv").set_index("quantity")
    for name in ("uniform", "Gaussian"):
        (shown,) = re.findall(rf"{name}(?: density)?((?: −[\d.]+,?){{4}})", page)
        shown = [-float(x) for x in re.findall(r"[\d.]*\d", shown)]
        assert shown == pytest.approx(slopes.slope[f"state entropy, {name}"].tolist(), abs=0.0051)
    rollouts = pd.read_csv(RESULTS / "theory" / "tables" / "rollouts.csv")
    entropies = rollouts[rollouts.horizon == "17 moves"].policy_entropy.tolist()
    (shown,) = re.findall(r"policy entropy 0,\s+(.*) nats for n = 1 to 32, and (.*) for n", page)
    shown = [0.0, *(float(x) for x in f"{shown[0]}, {shown[1]}".split(", "))]
    assert shown == pytest.approx(entropies, abs=0.0051)


# Speed.


# Pusher.

PUSHER = "results/pusher/README.md"


def test_pushers_table_is_the_exported_one():
    tables = RESULTS / "pusher" / "paper" / "tables"
    read = lambda name: pd.read_csv(tables / f"{name}.csv")
    numbers = read("numbers").set_index(["condition", "method"])
    paper = numbers.paper
    nominal = read("nominal").assign(perturbation="nominal")
    both = pd.concat([nominal, read("success")])
    success = both.set_index(["perturbation", "method"]).success
    measures = read("measures").set_index(["measure", "condition", "method"])
    methods = ("none", "policy_entropy", "state_entropy")
    for condition in ("nominal", "wall"):
        cells = [f"{success[condition, m]:.3f} | {paper[condition, m]:.3f}" for m in methods]
        assert f"| {condition} | {' | '.join(cells)} |" in text(PUSHER)
        rows = [measures.loc["return", condition, m] for m in methods]
        cells = [f"{row['mean']:.1f} | {row.paper:.1f}" for row in rows]
        assert f"| return, {condition} | {' | '.join(cells)} |" in text(PUSHER)
    cells = [f"{success['goal_shift', m]:.3f} | –" for m in methods]
    assert f"| goal shift, 0.15 m | {' | '.join(cells)} |" in text(PUSHER)
    for name in ("action_delay", "puck_mass"):
        none, policy, state = (success[name, m] for m in methods)
        assert re.search(rf"{state:.3f} against\s+{none:.3f}", text(PUSHER))
    assert f"(policy entropy: {policy:.3f})" in text(PUSHER)
    front = " ".join(text("README.md").split())
    for method, pair in {
        "none": "{:.3f} nominal and {:.3f} behind the wall",
        "policy_entropy": "with policy entropy {:.3f} and {:.3f}",
        "state_entropy": "with state entropy {:.3f} and {:.3f}",
    }.items():
        assert pair.format(success["nominal", method], success["wall", method]) in front
    assert numbers.ours_n.eq(3).all() and "**Three seeds so far**" in text(PUSHER)
    wall = both.set_index(["perturbation", "method"]).loc[("wall", "state_entropy")]
    assert f"[{wall.success_low:.2f}, {wall.success_high:.2f}]" in text(PUSHER)
    for condition in ("nominal", "wall"):
        row = numbers.loc[condition, "state_entropy"]
        interval = f"{row.difference:.3f} [{row.difference_low:.3f}, {row.difference_high:.3f}]"
        assert interval in text(PUSHER)
    assert f"{numbers.loc['wall', 'state_entropy'].ours_std:.3f} where the paper's is" in text(
        PUSHER
    )


def test_pushers_policies_do_the_same_in_gymnasium():
    found = json.loads((RESULTS / "pusher" / "transfer.json").read_text())
    assert sum(found["intervals_with_0"].values()) == 11 and found["of"] == 4
    rows = {(row["method"], row["wall"]): row for row in found["rows"]}
    there, here = (rows["state_entropy", 1.0][f"success_{at}"] for at in ("gymnasium", "here"))
    assert f"{there:.3f}\n  there and {here:.3f} here" in text(PUSHER)
    none = rows["none", 1.0]
    assert round(1e6 * (none["distance_here"] - none["distance_gymnasium"])) == 3


def measured(name: str):
    return json.loads((RESULTS / "speed" / f"{name}.json").read_text())


def thousands(value: float) -> str:
    """Rounded to thousands, or to hundreds below ten thousand."""
    step = 1000 if value >= 9950 else 100
    return f"{round(value / step) * step:,}"


def test_training_speeds_are_those_measured():
    page, training = text(SPEED), measured("training")
    row = " | ".join(f"{round(x['frames_per_s'], -3):,.0f}" for x in training["curve"])
    assert f"| frames/s | {row} |" in page
    parts = training["parts"]["ms_per_update"]
    said = (
        "{:.1f} for the environment, {:.0f} for the policy, {:.1f} (2 %) for the entropy bonus, "
        "{:.0f} for advantages"
    )
    assert said.format(*parts.values()) in page
    assert round(100 * parts["bonus"] / sum(parts.values())) == 2
    update = {x["agents"]: x["ms_per_update"] for x in training["curve"]}[75]
    assert f"With 75 agents an update takes {update:.0f} ms" in page
    plainly = training["ablations"][-1]
    assert f"runs at {round(plainly['frames_per_s'], -3):,.0f} frames/s" in page
    assert f"worth a factor of {plainly['ratio']:.1f}" in page


def test_pushers_training_speeds_are_those_measured():
    page, pusher = text(SPEED), measured("training_pusher")
    two, eight = (x["frames_per_s"] for x in pusher["curve"])
    assert f"trains {two:,.0f} frames/s with 2 agents and {eight:,.0f} with 8" in page
    assert f"one seed of one method takes {5e6 / two / 60:.0f}\nminutes" in page
    parts = pusher["parts"]["ms_per_update"]
    share = {
        name: f"{ms / sum(parts.values()):.0%}".replace("%", " %") for name, ms in parts.items()
    }
    said = "{3} are gradients, {0} physics, {1} policy and bookkeeping, {2} the"
    assert said.format(*share.values()) in page
    assert f"does {measured('torch_lstm_ppo')['frames_per_s']:,.0f} frames/s" in page


def test_the_pytorch_a2cs_speed_is_that_measured():
    page = text(SPEED)
    assert f"{measured('torch_a2c')['frames_per_s']:,.0f}"[:3] == "4,9" and "does 5,000" in page


def test_speeds_on_a_gpu_are_those_measured():
    for row in measured("accelerator")["rows"]:
        what = [row["task"], row["method"], row["runs"], "yes" if row["same_bits"] else "no"]
        rate, seconds = row["frames_per_s"] / 1e6, row["compile_s"]
        shown = " | ".join(map(str, [*what, f"{rate:.1f}", f"{seconds:.0f}"]))
        assert f"| {shown} |" in text(SPEED)


def test_presets_are_those_measured():
    keys = ("total_s", "compile_time_s", "train_time_s", "test_time_s")
    for file, presets in {"presets": ("smoke", "quick"), "presets_before": ("quick",)}.items():
        rows = {(row["preset"], row["start"]): row for row in measured(file)}
        for preset in presets:
            cold, warm = rows[preset, "cold"], rows[preset, "warm"]
            shown = (*(cold[k] for k in keys), warm["total_s"])
            assert " | ".join(f"{value:.1f}" for value in shown) in text(SPEED)


def test_what_workers_cost_is_what_was_measured():
    found, page = measured("workers"), text(SPEED)
    made_up, seconds = found["synthetic"], [row["seconds"] for row in found["suite"]]
    assert made_up["batches"] == 100_000
    rows = {
        "one worker, s": f"{seconds[0]:.0f}",
        "the same, two workers, s": f"{seconds[1]:.0f}",
        "testing and compiling, s": f"{found['per_batch']['overhead_s']:.3f}",
        "of ten runs, MB": f"{made_up['plan_bytes'] / 1e6:.0f}",
        "reading it, s": f"{made_up['plan_read_s']:.1f}",
        "one batch's runs, ms": f"{1e3 * made_up['part_written_s']:.1f}",
        "gathering 100,000 of them, s": f"{made_up['gather_s']:.0f}",
    }
    for what, value in rows.items():
        assert f"{what} | {value} |" in page
    engines = text("entrob/engines/README.md")
    assert (
        f"{made_up['gather_s']:.0f} s for one reader" in engines and "[0.04 s a batch]" in engines
    )


def test_environment_speeds_are_those_measured():
    for row in measured("environment")["rows"]:
        shown = " | ".join(thousands(x) for x in row["steps_per_s"].values())
        ratio = row["ours_over_peer"]["1024"]
        ratio = "" if ratio == 1 else f"{ratio:,.1f}" if ratio < 100 else f"{ratio:,.0f}"
        assert f"| {shown} | {ratio}" in text(SPEED), row["environment"]


def test_neighbors_are_those_measured():
    found = measured("knn")
    for row in found["points"]:
        ours, plainly, tree = row["seconds"].values()
        digits = 1 if ours < 0.1 else 0
        shown = f"{1e3 * ours:.{digits}f} | {plainly / ours:.0f} | {tree / ours:.2f}"
        assert f"| {row['points']} × {row['dimensions']} | {shown} |" in text(SPEED)
    counts, points = (1e3 * x for x in found["bonus"]["seconds"].values())
    assert f"needs {counts:.1f} ms for 75 agents where points need {points:.0f} ms" in text(SPEED)


def test_pushers_speeds_are_those_measured():
    page, found = text(SPEED), measured("pusher")["rows"]
    names = {"Gymnasium, sync": "Gymnasium, C MuJoCo, sync"}
    names["Gymnasium, async"] = "Gymnasium, C MuJoCo, async"
    for name, columns in found.items():
        cells = [
            f"{columns[n]['steps_per_s']:,.0f}" if n in columns else "–"
            for n in ("1", "32", "256", "1024", "4096")
        ]
        assert f"| {names.get(name, name)} | {' | '.join(cells)} |" in page


def test_the_theorys_speeds_are_those_measured():
    found = measured("theory")
    for row in found["rows"]:
        times = f"{1e3 * row['entrob_s']:.2f} | {1e3 * row['cvxpy_s']:.2f} | {row['ratio']:.1f}"
        assert f"| {row['states']} | {times} |" in text(SPEED)
        assert f"1/{row['ratio']:.0f} " in text("entrob/theory/README.md")
    first, second = found["largest"]["first_s"], found["largest"]["second_s"]
    assert f"takes {first:.1f} s at the first call" in text(SPEED)
    assert f"and {second:.1f} s at the second" in text(SPEED)


def test_overheads_are_those_measured():
    page = text(SPEED)
    grid = pd.read_csv(RESULTS / "speed" / "overhead_grid.csv").set_index("method").overhead
    slow = {"lrpg": "LRPG", "value_gradient": "value gradient", "sr2l": "SR²L"}
    for name, said in slow.items():
        assert re.search(rf"{said} \({grid[name]:.1f}\)", page)
    players = grid[["pr_mdp", "rarl", "qarl"]]
    assert f"Adversaries take {players.min():.1f} to {players.max():.1f}" in page
    rest = grid.drop([*slow, *players.index, "none"])
    assert f"between {rest.min():.2f} and {rest.max():.2f} but" in page
    cartpole = {row["method"]: row["ratio"] for row in measured("overhead")["tasks"]["cartpole"]}
    said = {"re3": "RISE 1.5", "rise": "RISE 1.5", "state_entropy": "state entropy 1.6"}
    said |= {"apt": "APT 2.0", "vcse": "VCSE 2.1", "sr2l": "ascents make 2.6"}
    said |= {"lrpg": "LRPG 1.3", "value_gradient": "LRPG 1.3"}
    for name, words in said.items():
        assert f"{cartpole[name]:.1f}" == words.split()[-1] and words in page


def test_pushes_are_those_measured():
    page = text("entrob/envs/mujoco/README.md")
    pushes = json.loads((RESULTS / "contacts.json").read_text())["pushes"]
    for name in ("`mujoco/pusher`", "2.3.7, as it is, starts 1e-06 apart"):
        share, errors = within(pushes[name]), pushes[name]["error_mm"]
        median, most, more, all_ = (errors[q] for q in ("0.5", "0.9", "0.95", "1.0"))
        spread = f"{median:.2f}/{most:.1f}/{more:.2g}/{all_:.0f} mm"
        assert re.search(rf"\| {share} within 5 mm[^|]*{spread}", page), (share, spread)
    both = within(pushes["4.0.0, as it is"]), within(pushes["4.0.0, `stiff_contacts`"])
    assert "{} and {} within 5 mm".format(*both) in page
    ours = pushes["`mujoco/pusher`"]["error_mm"]
    first = f"| {within(pushes['`mujoco/pusher`'])} | {ours['0.5']:.2f} mm | {ours['0.9']:.1f} mm |"
    assert first in page


def within(pushes: dict) -> str:
    return f"{100 * pushes['within_5_mm']:.1f} %"
