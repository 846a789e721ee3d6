"""The report of a finished run: tables, figures, and one page that puts the paper beside them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.results import figures, markup, paper, store, tables

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
    level: float = paper.TEXT_LEVEL,
    occupancies: Mapping[str, np.ndarray] | None = None,
    walls: np.ndarray | None = None,
) -> Path:
    """Write `tables/`, `figures/` and `report.md` into a run folder; same input, same bytes.

    Args:
      folder: the run folder; files of an earlier report are replaced one by one, each whole.
      runs, curves, evaluation: tidy records; what they hold no row for is left out.
      manifest: facts about the run; those that are missing are shown as such.
      level: of the normal bands; 0.96 is the paper's text, 0.95 its code.
      occupancies, walls: method -> float[W, H] and bool[W, H], for heatmaps; both or neither.

    Returns:
      The path of `report.md`.

    Raises:
      EntrobError: if a file cannot be written, or two runs of a method share a seed.
    """
    folder = Path(folder)
    frames = {
        "paper": paper_table(runs, evaluation),
        "nominal": tables.nominal_table(runs, curves, evaluation, level),
        "success": tables.success_table(runs, evaluation, level),
        "robustness": tables.robustness_table(runs, evaluation, level),
        "improvement": tables.improvement_table(runs, evaluation),
    }
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    drawn = {"figure4": figures.figure4(runs, curves, evaluation, level)}
    if "robustness" in frames:
        drawn["robustness"] = figures.robustness_curves(runs, evaluation, level)
    if "improvement" in frames:
        drawn["improvement"] = figures.improvement_figure(frames["improvement"])
    if occupancies:
        drawn["occupancy"] = figures.occupancy_heatmaps(occupancies, walls)
    captions = table_captions(level)
    tables.write_tables(frames, folder / "tables", captions)
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures", name)
    page = [f"# {manifest.get('experiment', 'experiment')}, preset {manifest.get('preset', '?')}"]
    page += [markup.markdown(_facts(manifest)), _diverged(runs)]
    page += ["## Beside the paper", _protocol(runs, evaluation)]
    if "paper" in frames:
        page += [markup.markdown(frames["paper"], captions["paper"])]
    page += [_image("figure4", "Training and success against every horizon")]
    for name, title in SECTIONS.items():
        if name in frames:
            page += [f"## {title}", markup.markdown(frames[name], captions[name])]
        if name in drawn:
            page += [_image(name, title)]
    if "occupancy" in drawn:
        page += ["## Occupancy", _image("occupancy", "Occupancy of each method")]
    path = folder / "report.md"
    text = "\n\n".join(part.rstrip() for part in page if part) + "\n"
    store.write_bytes(path, text.encode())
    return path


SECTIONS = {
    "nominal": "Nominal performance",
    "success": "Success under each perturbation",
    "robustness": "Robustness over the magnitude",
    "improvement": "Probability of improvement",
}
"""Titles of the tables after the comparison with the paper."""


def paper_table(runs: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """For every perturbation and pair of the paper's methods: the paper's claim beside ours.

    `verdict` is "agrees" or "disagrees" if the interval of the paired probability of improvement
    lies above or below 0.5 (`tables.excludes_half`), "undecided" if it does not exclude 0.5, and
    "no claim" if the paper orders the pair nowhere; `ours` is what the interval says either way.
    Variants (``[paper]``, ``[reference]``) are compared among themselves; a method that has none,
    as `none`, stands in plain.
    """
    columns = ["perturbation", "paper", "first", "second", "claim", "ours"]
    columns += ["probability", "probability_low", "probability_high", "pairs", "verdict"]
    rows = []
    for perturbation in tables.perturbation_order(evaluation):
        if perturbation not in paper.MAGNITUDES:
            continue
        scores = tables.headline_scores(runs, evaluation, perturbation)
        for claim, first, second in _pairs(perturbation, scores):
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
        "nominal": f"The unperturbed task. {band}; IQM is the interquartile mean with its 95 % "
        "bootstrap interval; return in training is over the last 10 % of frames.",
        "success": f"Success at the end of the horizon. {band}; IQM is the interquartile mean with "
        "its 95 % bootstrap interval. Solvable: instances with a path within the limit. Exact, "
        "worst case and CVaR 10 % (mean of the worst tenth of the solvable instances) are computed "
        "by dynamic programming and averaged over seeds; a dash where that does not apply.",
        "robustness": "Area under success against magnitude, the magnitude scaled to [0, 1], "
        f"endpoints included; a dash with a single magnitude. {band}.",
        "improvement": "Probability that a method's run beats the baseline's run of the same seed, "
        "ties half, with its 95 % bootstrap interval, not corrected for the number of comparisons.",
    }


def _pairs(perturbation: str, scores: Mapping) -> Iterator[tuple[paper.Claim, str, str]]:
    """Every pair of the paper's methods, plain and per variant, with its claim (relation or "")."""
    claims = list(paper.CLAIMS.get(perturbation, ()))
    claimed = {frozenset((claim.better, claim.worse)) for claim in claims}
    for i, second in enumerate(paper.METHODS):
        for first in paper.METHODS[i + 1 :]:
            if frozenset((first, second)) not in claimed:
                claims.append(paper.Claim(first, "", second))
    brackets = [name[len(tables.base_name(name)) :] for name in tables.method_order(scores)]
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


def _protocol(runs: pd.DataFrame, evaluation: pd.DataFrame) -> str:
    """What the paper did and what was done here: the numbers that say whether they compare."""
    finished = runs[runs["status"] == "finished"]
    seeds = finished.groupby("method")["seed"].nunique()
    ours = ", ".join(f"{method} {seeds.get(method, 0)}" for method in _methods(runs))
    at = [
        f"{name} {tables.headline_magnitude(evaluation, name):g} (paper {paper.MAGNITUDES[name]:g})"
        for name in tables.perturbation_order(evaluation)
        if name in paper.MAGNITUDES
    ]
    frames = ", ".join(f"{count:,}" for count in sorted(finished["frames"].unique()))
    fidelity = ", ".join(sorted(runs["fidelity"].unique()))
    return (
        "The paper publishes curves and an order of methods for MiniGrid but no numbers, so the "
        f"order is what can be compared. Paper: {paper.SEEDS} seeds, {paper.INSTANCES} test "
        f"episodes each, 3,000,000 frames. Here, seeds: {ours}; frames: {frames or 'none'}; "
        f"fidelity: {fidelity}; magnitudes: {', '.join(at) or 'none of the paper'}."
    )


def _methods(runs: pd.DataFrame) -> list[str]:
    return tables.method_order(runs["method"])


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
