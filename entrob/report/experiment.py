"""The report of a finished run: tables, figures, and one page that puts the paper beside them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from entrob.naming import Label
from entrob.persistence import store
from entrob.report import markup, tables
from entrob.report.figures import comparison, drawing
from entrob.report.figures import success as success_figures
from entrob.report.figures.measures import distance_figure, measures_table
from entrob.report.figures.trajectories import trajectories
from entrob.report.figures.while_training import best_and_last, success_against_frames
from entrob.report.paper import TEXT_LEVEL, Claim, Paper
from entrob.statistics import intervals
from entrob.sweep.progress import steps

FACTS = (
    "experiment",
    "experiment_hash",
    "preset",
    "command",
    "seeds",
    "methods",
    "device",
    "precision",
    "wall_time_s",
    "compile_time_s",
    "frames_per_s",
    "git_commit",
    "versions",
)
"""Entries of the manifest that the report opens with."""


def write_report(
    folder: Path,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    evaluation: pd.DataFrame,
    manifest: Mapping[str, Any],
    *,
    level: float = TEXT_LEVEL,
    occupancies: Mapping[str, np.ndarray] | None = None,
    walls: np.ndarray | None = None,
    traces: pd.DataFrame | None = None,
    progress: pd.DataFrame | None = None,
) -> Path:
    """Write `tables/`, `figures/` and `report.md` into a run folder; same input, same bytes.

    Args:
      folder: the run folder; files of an earlier report are replaced one by one, each whole.
      runs, curves, evaluation: tidy records; what they hold no row for is left out.
      manifest: facts about the run and what it declares about the paper (`Paper.read`); those that
        are missing are shown as such.
      level: of the figures' intervals and the paper's normal bands: 0.96 by its text, 0.95 by
        its code.
      occupancies, walls: method -> float[W, H] and bool[W, H], for heatmaps; both or neither.
      traces: where episodes went, for `trajectories`.
      progress: how policies of earlier frames fared, for `while_training`.

    Returns:
      The path of `report.md`.

    Raises:
      EntrobError: if a file cannot be written, or two runs of a method share a seed.
    """
    folder, paper = Path(folder), Paper.read(manifest)
    progress = pd.DataFrame() if progress is None else progress
    frames = computed(runs, curves, evaluation, progress, paper)
    drawn = {
        "bars": comparison.bars(runs, evaluation, paper, level),
        "horizon": success_figures.horizon_figure(runs, curves, evaluation, paper, level),
        "variants": _variants(runs, curves, evaluation, paper, level),
        "training": comparison.training(runs, curves, paper, level),
        "while_training": success_against_frames(runs, progress, paper),
        "distance": distance_figure(runs, evaluation, paper),
    }
    if traces is not None and len(traces):
        scenes, axes = manifest.get("scenes", {}), manifest.get("trace_axes", ("x", "y"))
        drawn["trajectories"] = trajectories(runs, evaluation, traces, paper, scenes, axes)
    if "robustness" in frames:
        drawn["robustness"] = success_figures.robustness_curves(runs, evaluation, paper, level)
    if "difference" in frames:
        drawn["difference"] = success_figures.difference_figure(frames["difference"], paper)
    if occupancies and walls is not None:
        drawn["occupancy"] = success_figures.occupancy_heatmaps(occupancies, walls, paper)
    drawn = {name: figure for name, figure in drawn.items() if figure is not None}
    captions = CAPTIONS
    tables.write_tables(frames, folder / "tables", captions)
    files = {name: name for name in drawn}
    if paper.figure is not None:
        files["horizon"] = f"figure{paper.figure}"
    with steps("drawing", len(drawn)) as step:
        for name, figure in drawn.items():
            drawing.save(figure, folder / "figures", files[name])
            step()
    page = [f"# {manifest.get('experiment', 'experiment')}, preset {manifest.get('preset', '?')}"]
    page += [markup.markdown(_facts({**manifest, **_of_records(runs, paper)})), diverged(runs)]
    for wanted, title in SECTIONS.items():
        names = [name for name in wanted if name in frames or name in drawn]
        page += [f"## {title}"] if names else []
        page += [protocol(runs, evaluation, paper)] if "horizon" in names else []
        for name in names:
            if name in frames:
                page += [markup.markdown(frames[name], captions[name])]
            if name in drawn:
                page += [_image(files[name], IMAGES.get(name, title))]
    path = folder / "report.md"
    text = "\n\n".join(part.rstrip() for part in page if part) + "\n"
    store.write_bytes(path, text.encode())
    return path


def computed(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    evaluation: pd.DataFrame,
    progress: pd.DataFrame,
    paper: Paper,
) -> dict[str, pd.DataFrame]:
    """Every table that is printed, by name; those without rows are left out."""
    frames = {
        "paper": paper_table(runs, evaluation, paper),
        "numbers": tables.numbers_table(runs, evaluation, paper),
        "nominal": tables.nominal_table(runs, curves, evaluation, paper),
        "success": tables.success_table(runs, evaluation, paper),
        "robustness": tables.robustness_table(runs, evaluation, paper),
        "difference": tables.difference_table(runs, evaluation, paper),
        "measures": measures_table(runs, evaluation, paper) if paper.measures else (),
        "while_training": best_and_last(runs, progress, paper),
    }
    return {name: frame for name, frame in frames.items() if len(frame)}


SECTIONS = {
    ("paper", "numbers", "bars", "measures", "horizon", "variants"): "Beside the paper",
    ("distance",): "Where episodes end",
    ("trajectories",): "Trajectories",
    ("while_training",): "Success against frames",
    ("training",): "Training",
    ("nominal",): "Nominal performance",
    ("success",): "Success under each perturbation",
    ("robustness",): "Robustness over the magnitude",
    ("difference",): "Paired differences",
    ("occupancy",): "Occupancy",
}
"""Tables and figures of each section, and its title."""

IMAGES = {
    "bars": "Success of every method under every condition",
    "horizon": "Training and success against every horizon",
    "variants": "The same with the methods' variants",
    "trajectories": "Where the body went, per method and condition",
    "while_training": "Success of earlier policies, nominal and perturbed",
    "distance": "Distance from the goal at the end of an episode",
    "training": "Success, return, policy entropy and bonus while training",
    "occupancy": "Occupancy of each method",
}
"""What a figure shows, where the section's title does not say it."""


def paper_table(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """For every perturbation and pair of the methods that the paper orders: its claim beside ours.

    `difference` is the success of the first less that of the second, paired by seed, with its 95 %
    bootstrap-t interval; `verdict` is `comparison.verdict` of it.
    Variants (``[paper]``, ``[reference]``) are compared among themselves; a method that has none,
    as `none`, stands in plain.
    """
    columns = ["perturbation", "paper", "first", "claim", "second"]
    columns += ["difference", "difference_low", "difference_high", "pairs", "verdict"]
    rows = []
    for perturbation in tables.perturbation_order(evaluation, paper):
        if perturbation not in paper.magnitudes:
            continue
        scores = tables.headline_scores(runs, evaluation, perturbation, paper)
        for claim, first, second in _pairs(perturbation, scores, paper):
            found = intervals.paired_difference(scores[first], scores[second])
            row = [perturbation, paper.order(perturbation), first, claim.relation or "–", second]
            rows.append([*row, *found, comparison.verdict(claim.relation, found)])
    return pd.DataFrame(rows, columns=columns)


_T = "brackets: Student's t interval over seeds, which ends at 0 and 1 for rates, none if all agree"

CAPTIONS = {
    "paper": "Success of the first less that of the second, paired by seed, with its 95 % "
    "bootstrap-t interval, none below six pairs or if all are alike. Agrees: the interval lies on "
    "the claimed side of 0 (for ≥, above -0.05); disagrees: on the other; else undecided.",
    "numbers": "Success rates, ours and the paper's; ± s is the sample standard deviation over n "
    "seeds. The difference is ours less the paper's with its Welch 95 % interval; compatible: it "
    "holds 0, which with few seeds says little.",
    "nominal": f"The unperturbed task; {_T}. IQM: the interquartile mean with its 95 % bootstrap "
    "interval, none below six seeds; return in training is over the last 10 % of frames.",
    "success": f"Success at the end of the horizon; {_T}. IQM: the interquartile mean with its "
    "95 % bootstrap interval, none below six seeds. Solvable: instances with a path within the "
    "limit. Exact, worst case and CVaR 10 % (mean of the worst tenth of the solvable instances) "
    "are computed by dynamic programming and averaged over seeds; a dash where it does not apply.",
    "robustness": "Area under success against magnitude, the magnitude scaled to [0, 1], "
    f"endpoints included; a dash with a single magnitude; {_T}.",
    "difference": "Success less that of the baseline's run of the same seed, with its 95 % "
    "bootstrap-t interval, none below six pairs or if all are alike, and not corrected for the "
    "number of comparisons. P(better): share of the pairs won, ties half.",
    "measures": "Mean over seeds, its 95 % t-interval, and the mean that the authors' files give.",
    "while_training": "Mean success over runs of the last policy, and of that with the best "
    "nominal success among those kept (of equal ones the latest); frames: their median.",
}
"""One sentence or two per table: what its numbers are."""


def _variants(runs, curves, evaluation, paper: Paper, level: float):
    """The figure of success over the horizon with variants, None if there are none to add."""
    names = set(runs["method"])
    if not {True, False} <= set(map(tables.is_variant, names)):
        return None
    return success_figures.horizon_figure(runs, curves, evaluation, paper, level, variants=True)


def _pairs(perturbation: str, scores: Mapping, paper: Paper) -> Iterator[tuple[Claim, str, str]]:
    """Every pair of the ordered methods, plain and per variant, with its claim (relation or "")."""
    claims = list(paper.claims.get(perturbation, ()))
    claimed = {frozenset((claim.better, claim.worse)) for claim in claims}
    for i, second in enumerate(paper.compared):
        for first in paper.compared[i + 1 :]:
            if frozenset((first, second)) not in claimed:
                claims.append(Claim(first, "", second))
    names = tables.method_order(scores, paper)
    for variant in dict.fromkeys(Label.parse(name).variant for name in names):
        for claim in claims:
            plain = claim.better, claim.worse
            own = [str(Label.parse(base)._replace(variant=variant)) for base in plain]
            better, worse = (mine if mine in scores else base for mine, base in zip(own, plain))
            fits = better == own[0] or worse == own[1]
            if fits and better in scores and worse in scores:
                yield claim, better, worse


def protocol(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> str:
    """What the paper did and what was done here: the numbers that say whether they compare."""
    finished = runs[runs["status"] == "finished"]
    seeds = finished.groupby("method")["seed"].nunique()
    methods = tables.method_order(runs["method"], paper)
    ours = ", ".join(f"{method} {seeds.get(method, 0)}" for method in methods)
    at = [
        f"{name} {tables.headline_magnitude(evaluation, name, paper):g} "
        f"(paper {paper.magnitudes[name]:g})"
        for name in tables.perturbation_order(evaluation, paper)
        if name in paper.magnitudes
    ]
    quoted = [
        f"{count:,} {name}"
        for count, name in (
            (paper.seeds, "seeds"),
            (paper.instances, "test episodes each"),
            (paper.frames, "frames"),
        )
        if count
    ]
    frames = ", ".join(f"{count:,}" for count in sorted(finished["frames"].unique()))
    fidelity = ", ".join(sorted(runs["fidelity"].unique()))
    parts = [
        paper.note,
        f"Paper: {', '.join(quoted)}." if quoted else "",
        f"Here, seeds: {ours}; frames: {frames or 'none'}; fidelity: {fidelity}; "
        f"magnitudes: {', '.join(at) or 'none of the paper'}.",
    ]
    return " ".join(part for part in parts if part)


def _of_records(runs: pd.DataFrame, paper: Paper) -> dict[str, Any]:
    """Methods and seeds of the tables: those of the last command may be others."""
    order = tables.method_order(runs["method"], paper)
    seeds: dict[str, list[str]] = {}
    for method in order:
        own = sorted(set(runs.loc[runs["method"] == method, "seed"]))
        seeds.setdefault(", ".join(map(str, own)), []).append(method)
    text = "; ".join(f"{some} ({', '.join(names)})" for some, names in seeds.items())
    found: dict[str, Any] = {"seeds": next(iter(seeds)) if len(seeds) == 1 else text}
    if "coefficients" in runs:
        given = runs.drop_duplicates("method").set_index("method")["coefficients"]
        found["methods"] = {method: json.loads(given[method]) for method in order}
    return found


def _facts(manifest: Mapping[str, Any]) -> pd.DataFrame:
    rows = [(fact.replace("_", " "), _fact(manifest.get(fact))) for fact in FACTS]
    return pd.DataFrame(rows, columns=["fact", "value"])


def _fact(value: object) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def diverged(runs: pd.DataFrame) -> str:
    lost = runs[runs["status"] == "diverged"]
    if lost.empty:
        return "No run diverged."
    lines = [
        f"- {row.method}, seed {row.seed}, at update {row.diverged_at}: {row.cause}"
        for row in lost.itertuples()
    ]
    return "\n".join(["Diverged, and left out of every mean:", "", *lines])


def _image(name: str, title: str) -> str:
    return f"![{title}](figures/{name}.png)\n\n[{name}.pdf](figures/{name}.pdf)"
