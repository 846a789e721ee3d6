"""Tables of a finished run: tidy frames first, then Markdown, CSV and LaTeX of the same numbers.

Every table function takes the tidy records of a run folder (`runs`, `curves`, `evaluation`) and
returns a frame of plain numbers, one row per thing compared.  Diverged runs are left out of every
mean and counted in the column `diverged`.

Column names carry their meaning, in the frames and in the CSV files: `x_band` is the half-width of
x's normal band, `x_low` and `x_high` are the ends of x's 95 % bootstrap interval.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.results import markup, paper, statistics, store

BASELINES = ("none", "policy_entropy")
"""What `improvement_table` compares every method with."""


def finished(runs: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` (with a `run_id`) that belong to finished runs, not to diverged ones."""
    return frame[frame["run_id"].isin(runs.loc[runs["status"] == "finished", "run_id"])]


def method_order(methods: Iterable[str]) -> list[str]:
    """Distinct methods: the paper's first, then others by name, each before its variants.

    A variant's label ends in a bracket, like ``state_entropy[paper]``.
    """
    names = sorted(set(methods))
    bases = list(dict.fromkeys([*paper.METHODS, *map(base_name, names)]))
    return sorted(names, key=lambda name: (is_variant(name), bases.index(base_name(name))))


def base_name(method: str) -> str:
    """The method without its variant's bracket."""
    return method.partition("[")[0]


def is_variant(method: str) -> bool:
    """Whether the label ends in a bracket: a further row, drawn dashed."""
    return method.endswith("]")


def headline_magnitude(evaluation: pd.DataFrame, perturbation: str) -> float:
    """The paper's magnitude of a perturbation if it was evaluated, else the largest that was."""
    magnitudes = evaluation.loc[evaluation["perturbation"] == perturbation, "magnitude"].unique()
    published = paper.MAGNITUDES.get(perturbation, np.inf)
    return float(published if np.isclose(magnitudes, published).any() else magnitudes.max())


def at_headline(evaluation: pd.DataFrame, perturbation: str) -> pd.DataFrame:
    """The rows of one perturbation at its headline magnitude."""
    magnitude = headline_magnitude(evaluation, perturbation)
    near = np.isclose(evaluation["magnitude"], magnitude)
    return evaluation[(evaluation["perturbation"] == perturbation) & near]


def perturbation_order(evaluation: pd.DataFrame) -> list[str]:
    """Evaluated perturbations: the paper's four first, then the others by name."""
    present = set(evaluation["perturbation"])
    known = [name for name in paper.MAGNITUDES if name in present]
    return known + sorted(present - set(known))


def nominal_table(
    runs: pd.DataFrame, curves: pd.DataFrame, evaluation: pd.DataFrame, level: float = 0.96
) -> pd.DataFrame:
    """Per method: the unperturbed task, tested (magnitude 0) and over the last 10 % of training.

    A run's nominal score is the mean over its rows of magnitude 0, whichever perturbation they
    belong to: magnitude 0 is the identity.
    """
    test = finished(runs, evaluation[evaluation["magnitude"] == 0])
    test = test.groupby("run_id")[["success", "return_mean"]].mean()
    train = finished(runs, curves)
    train = train[train["frames"] > 0.9 * train["frames"].max()]
    train = train.groupby("run_id")["return_mean"].mean()
    rows = []
    for method in method_order(runs["method"]):
        ids = runs.loc[(runs["method"] == method) & (runs["status"] == "finished"), "run_id"]
        scores = test.reindex(ids)
        rows.append(
            {"method": method}
            | _summary("success", scores["success"], level)
            | _mean_band("return_mean", scores["return_mean"], level)
            | _mean_band("training_return", train.reindex(ids), level)
            | {"seeds": len(ids), "diverged": _diverged(runs, method)}
        )
    return pd.DataFrame(rows)


def success_table(
    runs: pd.DataFrame, evaluation: pd.DataFrame, level: float = 0.96
) -> pd.DataFrame:
    """Per perturbation (at its headline magnitude) and method: success every way it is measured.

    `success` is sampled over all instances, `success_solvable` over those with a path within the
    limit, `exact_*` come from dynamic programming (NaN where that cannot be computed): the mean,
    the worst and the mean of the worst 10 % of a policy's instances, each averaged over seeds.
    """
    rows = []
    for perturbation in perturbation_order(evaluation):
        at = at_headline(evaluation, perturbation)
        for method, scores in _by_method(runs, at):
            rows.append(
                {
                    "perturbation": perturbation,
                    "magnitude": headline_magnitude(evaluation, perturbation),
                    "method": method,
                }
                | _summary("success", scores["success"], level)
                | {
                    name: scores[name].mean()
                    for name in (
                        "success_solvable",
                        "solvable",
                        "exact_success",
                        "exact_worst",
                        "exact_cvar",
                    )
                }
                | {"seeds": len(scores), "diverged": _diverged(runs, method)}
            )
    return pd.DataFrame(rows)


def robustness_table(
    runs: pd.DataFrame, evaluation: pd.DataFrame, level: float = 0.96
) -> pd.DataFrame:
    """Per perturbation and method: success over the whole range of magnitudes.

    `area` is the area under a run's curve of sampled success, `lowest` its lowest point, both then
    averaged over seeds; `exact_area` and `exact_worst` are the same of the exact success and of the
    worst instance.  Areas need two magnitudes and are NaN with one.
    """
    rows = []
    for perturbation in perturbation_order(evaluation):
        selected = evaluation[evaluation["perturbation"] == perturbation]
        for method, scores in _by_method(runs, selected):
            sampled, exact, worst = (
                scores.pivot(index="seed", columns="magnitude", values=name)
                for name in ("success", "exact_success", "exact_worst")
            )
            rows.append(
                {
                    "perturbation": perturbation,
                    "magnitudes": sampled.shape[1],
                    "largest": sampled.columns.max(),
                    "method": method,
                }
                | _summary("area", pd.Series(_area(sampled)), level)
                | {
                    "lowest": sampled.min(axis=1).mean(),
                    "exact_area": pd.Series(_area(exact)).mean(),
                    "exact_worst": worst.min(axis=1).mean(),
                    "seeds": len(sampled),
                    "diverged": _diverged(runs, method),
                }
            )
    return pd.DataFrame(rows)


def improvement_table(
    runs: pd.DataFrame, evaluation: pd.DataFrame, baselines: Iterable[str] = BASELINES
) -> pd.DataFrame:
    """Paired-by-seed probability that a method beats a baseline, at the headline magnitude.

    The score is sampled success.  Pairs are the seeds that finished under both methods; `pairs`
    counts them.  Intervals are 95 % bootstrap ones, each for itself: nothing corrects for how many
    there are.
    """
    columns = ["perturbation", "magnitude", "method", "baseline"]
    columns += ["probability", "probability_low", "probability_high", "pairs", "excludes_half"]
    rows = []
    for perturbation in perturbation_order(evaluation):
        magnitude = headline_magnitude(evaluation, perturbation)
        scores = headline_scores(runs, evaluation, perturbation)
        present = [baseline for baseline in baselines if baseline in scores]
        for i, baseline in enumerate(present):
            for method in scores:
                if method in present[: i + 1]:  # itself, or a pair that stands there reversed
                    continue
                found = improvement(scores[method], scores[baseline])
                half = excludes_half(found)
                rows.append([perturbation, magnitude, method, baseline, *found, half])
    return pd.DataFrame(rows, columns=columns)


def headline_scores(
    runs: pd.DataFrame, evaluation: pd.DataFrame, perturbation: str
) -> dict[str, dict[int, float]]:
    """Sampled success of every finished run at the headline magnitude: method -> seed -> score."""
    groups = _by_method(runs, at_headline(evaluation, perturbation))
    return {method: dict(zip(g["seed"], g["success"], strict=True)) for method, g in groups}


def improvement(x: Mapping[int, float], y: Mapping[int, float]) -> statistics.Improvement:
    """`statistics.probability_of_improvement` over the seeds that both sides have, NaN if none."""
    seeds = sorted(set(x) & set(y))
    if not seeds:
        return statistics.Improvement(np.nan, np.nan, np.nan, 0)
    return statistics.probability_of_improvement(
        {seed: x[seed] for seed in seeds}, {seed: y[seed] for seed in seeds}
    )


def excludes_half(found: statistics.Improvement) -> bool:
    """Whether the interval lies on one side of 0.5, and six pairs or more stand behind it.

    If every pair goes one way the bootstrap interval has no width, however few they are.  Six are
    the fewest with which a two-sided sign test could reject at 5 %: 2 · 2⁻⁶ = 0.03.
    """
    return bool(found.pairs >= 6 and (found.low > 0.5 or found.high < 0.5))


def write_tables(
    frames: Mapping[str, pd.DataFrame], folder: Path, captions: Mapping[str, str] | None = None
) -> None:
    """Write every frame as `name.md`, `name.csv` (all columns, all digits) and `name.tex`.

    Raises:
      EntrobError: if a file cannot be written.
    """
    for name, frame in frames.items():
        caption = (captions or {}).get(name, "")
        texts = {
            "md": markup.markdown(frame, caption),
            "tex": markup.latex(frame, caption),
            "csv": frame.to_csv(index=False, lineterminator="\n"),
        }
        for suffix, text in texts.items():
            store.write_bytes(Path(folder) / f"{name}.{suffix}", text.encode())


def _by_method(runs: pd.DataFrame, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows of finished runs per method, empty for a method of which every run diverged."""
    rows = finished(runs, rows)
    groups = []
    for method in method_order(runs["method"]):
        group = rows[rows["method"] == method]
        if group.duplicated(["seed", "perturbation", "magnitude"]).any():
            raise EntrobError(
                f"method {method!r} holds several runs of one seed: name each variant differently"
            )
        if len(group) or _diverged(runs, method):
            groups.append((method, group))
    return groups


def _diverged(runs: pd.DataFrame, method: str) -> int:
    return int(((runs["method"] == method) & (runs["status"] == "diverged")).sum())


def _mean_band(name: str, scores: pd.Series, level: float) -> dict[str, float]:
    mean, band = statistics.normal_band(scores.to_numpy(), level)
    return {name: mean, f"{name}_band": band}


def _summary(name: str, scores: pd.Series, level: float) -> dict[str, float]:
    values = scores.to_numpy(dtype=float)
    iqm = statistics.interquartile_mean(values) if len(values) else np.nan
    low, high = statistics.bootstrap_interval(values, statistics.interquartile_mean)
    interval = {f"{name}_iqm": iqm, f"{name}_iqm_low": low, f"{name}_iqm_high": high}
    return _mean_band(name, scores, level) | interval


def _area(curves: pd.DataFrame) -> np.ndarray:
    if not len(curves):
        return np.empty(0)
    return statistics.area_under_curve(curves.columns.to_numpy(), curves.to_numpy())
