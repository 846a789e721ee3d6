"""The report of a finished run: tables, figures, and one page that puts the paper beside them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.results import comparison, drawing, figures, markup, store, tables
from entrob.results.measures import distance_figure, measures_table
from entrob.results.paper import TEXT_LEVEL, Claim, Paper
from entrob.results.trajectories import trajectories
from entrob.results.while_training import best_and_last, success_against_frames

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
    manifest: Mapping[str, object],
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
      level: of the normal bands; 0.96 is the paper's text, 0.95 its code.
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
    frames = {
        "paper": paper_table(runs, evaluation, paper),
        "numbers": tables.numbers_table(runs, evaluation, paper),
        "nominal": tables.nominal_table(runs, curves, evaluation, paper, level),
        "success": tables.success_table(runs, evaluation, paper, level),
        "robustness": tables.robustness_table(runs, evaluation, paper, level),
        "improvement": tables.improvement_table(runs, evaluation, paper),
        "measures": measures_table(runs, evaluation, paper) if paper.measures else (),
        "while_training": best_and_last(runs, progress, paper),
    }
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    drawn = {
        "bars": comparison.bars(runs, evaluation, paper, level),
        "horizon": figures.horizon_figure(runs, curves, evaluation, paper, level),
        "training": comparison.training(runs, curves, paper, level),
        "while_training": success_against_frames(runs, progress, paper),
        "distance": distance_figure(runs, evaluation, paper),
    }
    if traces is not None and len(traces):
        scenes = manifest.get("scenes", {}), manifest.get("trace_axes", ("x", "y"))
        drawn["trajectories"] = trajectories(runs, evaluation, traces, paper, *scenes)
    if "robustness" in frames:
        drawn["robustness"] = figures.robustness_curves(runs, evaluation, paper, level)
    if "improvement" in frames:
        drawn["improvement"] = figures.improvement_figure(frames["improvement"], paper)
    if occupancies:
        drawn["occupancy"] = figures.occupancy_heatmaps(occupancies, walls, paper)
    drawn = {name: figure for name, figure in drawn.items() if figure is not None}
    captions = table_captions(level)
    tables.write_tables(frames, folder / "tables", captions)
    files = {name: name for name in drawn}
    if paper.figure is not None:
        files["horizon"] = f"figure{paper.figure}"
    for name, figure in drawn.items():
        drawing.save(figure, folder / "figures", files[name])
    page = [f"# {manifest.get('experiment', 'experiment')}, preset {manifest.get('preset', '?')}"]
    page += [markup.markdown(_facts(manifest)), _diverged(runs)]
    for names, title in SECTIONS.items():
        names = [name for name in names if name in frames or name in drawn]
        page += [f"## {title}"] if names else []
        page += [_protocol(runs, evaluation, paper)] if "horizon" in names else []
        for name in names:
            if name in frames:
                page += [markup.markdown(frames[name], captions[name])]
            if name in drawn:
                page += [_image(files[name], IMAGES.get(name, title))]
    path = folder / "report.md"
    text = "\n\n".join(part.rstrip() for part in page if part) + "\n"
    store.write_bytes(path, text.encode())
    return path


SECTIONS = {
    ("paper", "numbers", "bars", "measures", "horizon"): "Beside the paper",
    ("distance",): "Where episodes end",
    ("trajectories",): "Trajectories",
    ("while_training",): "Success against frames",
    ("training",): "Training",
    ("nominal",): "Nominal performance",
    ("success",): "Success under each perturbation",
    ("robustness",): "Robustness over the magnitude",
    ("improvement",): "Probability of improvement",
    ("occupancy",): "Occupancy",
}
"""Tables and figures of each section, and its title."""

IMAGES = {
    "bars": "Success of every method under every condition",
    "horizon": "Training and success against every horizon",
    "trajectories": "Where the body went, per method and condition",
    "while_training": "Success of earlier policies, nominal and perturbed",
    "distance": "Distance from the goal at the end of an episode",
    "training": "Success, return, policy entropy and bonus while training",
    "occupancy": "Occupancy of each method",
}
"""What a figure shows, where the section's title does not say it."""


def paper_table(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """For every perturbation and pair of the methods that the paper orders: its claim beside ours.

    `verdict` is "agrees" or "disagrees" if the interval of the paired probability of improvement
    lies above or below 0.5 (`tables.excludes_half`), "undecided" if it does not exclude 0.5, and
    "no claim" if the paper orders the pair nowhere; `ours` is what the interval says either way.
    Variants (``[paper]``, ``[reference]``) are compared among themselves; a method that has none,
    as `none`, stands in plain.
    """
    columns = ["perturbation", "paper", "first", "second", "claim", "ours"]
    columns += ["probability", "probability_low", "probability_high", "pairs", "verdict"]
    rows = []
    for perturbation in tables.perturbation_order(evaluation, paper):
        if perturbation not in paper.magnitudes:
            continue
        scores = tables.headline_scores(runs, evaluation, perturbation, paper)
        for claim, first, second in _pairs(perturbation, scores, paper):
            found = tables.improvement(scores[first], scores[second])
            ours = "undecided"
            if tables.excludes_half(found):
                ours = "first" if found.low > 0.5 else "second"
            row = [perturbation, paper.order(perturbation), first, second]
            row += [claim.relation or "–", ours, *found, _verdict(claim.relation, ours)]
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def table_captions(level: float) -> dict[str, str]:
    """One sentence or two per table: what its numbers are."""
    band = f"± is the normal {100 * level:g} % band over seeds"
    return {
        "paper": "The claim reads first–relation–second. Ours: which of the two has the higher "
        "sampled success, if the 95 % bootstrap interval of the paired probability of improvement "
        "excludes 0.5 and at least six seed pairs stand behind it.",
        "numbers": "Success rates, ours and the paper's: mean ± sample standard deviation over n "
        "seeds. The difference is ours minus the paper's with its Welch 95 % interval; compatible: "
        "it holds 0, which with few seeds says little.",
        "nominal": f"The unperturbed task. {band}; IQM is the interquartile mean with its 95 % "
        "bootstrap interval; return in training is over the last 10 % of frames.",
        "success": f"Success at the end of the horizon. {band}; IQM is the interquartile mean with "
        "its 95 % bootstrap interval. Solvable: instances with a path within the limit. Exact, "
        "worst case and CVaR 10 % (mean of the worst tenth of the solvable instances) are computed "
        "by dynamic programming and averaged over seeds; a dash where that does not apply.",
        "robustness": "Area under success against magnitude, the magnitude scaled to [0, 1], "
        f"endpoints included; a dash with a single magnitude. {band}.",
        "measures": "Mean over seeds, its 95 % t-interval, and the mean that the authors' files "
        "give.",
        "while_training": "Mean success over runs of the last policy, and of that with the best "
        "nominal success among those kept (of equal ones the latest); frames: their median.",
        "improvement": "Probability that a method's run beats the baseline's run of the same seed, "
        "ties half, with its 95 % bootstrap interval, not corrected for the number of comparisons.",
    }


def _pairs(perturbation: str, scores: Mapping, paper: Paper) -> Iterator[tuple[Claim, str, str]]:
    """Every pair of the ordered methods, plain and per variant, with its claim (relation or "")."""
    claims = list(paper.claims.get(perturbation, ()))
    claimed = {frozenset((claim.better, claim.worse)) for claim in claims}
    for i, second in enumerate(paper.compared):
        for first in paper.compared[i + 1 :]:
            if frozenset((first, second)) not in claimed:
                claims.append(Claim(first, "", second))
    names = tables.method_order(scores, paper)
    brackets = [name[len(tables.base_name(name)) :] for name in names]
    for bracket in dict.fromkeys(brackets):
        for claim in claims:
            names = [
                base + bracket if base + bracket in scores else base
                for base in (claim.better, claim.worse)
            ]
            fits = any(name.endswith(bracket) for name in names)
            if fits and all(name in scores for name in names):
                yield claim, *names


def _verdict(relation: str, ours: str) -> str:
    if not relation:
        return "no claim"
    return {"first": "agrees", "second": "disagrees"}.get(ours, "undecided")


def _protocol(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> str:
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


def _facts(manifest: Mapping[str, object]) -> pd.DataFrame:
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


def _diverged(runs: pd.DataFrame) -> str:
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
