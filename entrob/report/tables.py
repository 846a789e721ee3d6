"""Tables of a finished run: tidy frames first, then Markdown, CSV and LaTeX of the same numbers.

Every table function takes the tidy records of a run folder (`runs`, `curves`, `evaluation`) and
returns a frame of plain numbers, one row per thing compared.  Diverged runs are left out of every
mean and counted in the column `diverged`.

Column names carry their meaning, in the frames and in the CSV files: `x_std` is the sample standard
deviation of x over seeds, `x_low` and `x_high` are the ends of x's 95 % interval (Student's t of a
mean, the bootstrap's of an interquartile mean, bootstrap-t of a paired difference).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from entrob.errors import EntrobError
from entrob.naming import BASELINE, Label
from entrob.persistence import store
from entrob.perturbations.base import NOMINAL
from entrob.report import markup
from entrob.report.latex import Short, latex
from entrob.report.paper import Number, Paper
from entrob.statistics import aggregate, intervals

BASELINES = (BASELINE, "policy_entropy")
"""What `improvement_table` compares every method with; without them, with the first method."""

RATE, FREE = (0.0, 1.0), (-np.inf, np.inf)
"""Between what success and returns lie: no interval leaves it."""

_CLASSES = ("routes", "random walls", "shifts", "action noise", "observation noise", "dynamics")
_PAIR = ("perturbation", "first", "claim", "second", "difference", "pairs", "verdict")
_OVER = ("perturbation", "method", "baseline", "difference", "pairs", "probability")
_RANKS = ("rank", "method", "overall", "least", "nominal_gain", "price", "solved")

SHORT = {
    "paper": Short(_PAIR, spread=("difference",)),
    "numbers": Short(
        ("condition", "method", "ours", "ours_n", "paper", "paper_n", "verdict"),
        spread=("ours", "paper"),
    ),
    "nominal": Short(
        ("method", "success", "return_mean", "training_return", "seeds", "diverged"),
        spread=("success", "return_mean"),
        best=("success", "return_mean"),
    ),
    "success": Short(
        ("perturbation", "magnitude", "method", "success", "exact_worst", "seeds"),
        spread=("success",),
        best=("success", "exact_worst"),
        within=("perturbation",),
    ),
    "robustness": Short(
        ("perturbation", "method", "area", "lowest", "exact_worst", "seeds"),
        spread=("area",),
        best=("area", "lowest", "exact_worst"),
        within=("perturbation",),
    ),
    "difference": Short(_OVER, spread=("difference",)),
    "leaderboard": Short(
        _RANKS, spread=("overall",), best=("overall", "least", "nominal_gain", "solved")
    ),
    "classes": Short(("method", "class", "share", "all", "pairs"), spread=("share", "all")),
    "families": Short(("family", *_CLASSES), best=_CLASSES),
    "gains": Short(("method", "perturbation", "class", "gain", "differs"), spread=("gain",)),
}
"""What the short tables show."""

FIRST = (*BASELINES, "state_entropy")
"""What comes first among methods whose order nobody declared."""


def finished(runs: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` (with a `run_id`) that belong to finished runs, not to diverged ones."""
    return frame[frame["run_id"].isin(runs.loc[runs["status"] == "finished", "run_id"])]


def method_order(methods: Iterable[str], paper: Paper) -> list[str]:
    """Distinct methods: those declared in their order, then others by name; variants come last.

    A variant's label ends in a bracket, like ``state_entropy[paper]``.  Numbers within names count
    as numbers: "8 rollouts" comes before "16 rollouts".
    """
    names = sorted(set(methods), key=_natural)
    names.sort(key=[*paper.methods, *names].index)
    bases = list(dict.fromkeys(map(base_name, [*paper.methods, *FIRST, *names])))
    return sorted(names, key=lambda name: (is_variant(name), bases.index(base_name(name))))


def _natural(name: str) -> list[tuple[int, float | str]]:
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]


def base_name(method: str) -> str:
    """The method without its variant's bracket."""
    return str(Label.parse(method)._replace(variant=""))


def is_variant(method: str) -> bool:
    """Whether it is one of several readings: a further row, drawn dashed."""
    return bool(Label.parse(method).variant)


def headline_magnitude(evaluation: pd.DataFrame, perturbation: str, paper: Paper) -> float:
    """The paper's magnitude of a perturbation if it was evaluated, else the largest that was."""
    magnitudes = evaluation.loc[evaluation["perturbation"] == perturbation, "magnitude"].unique()
    published = paper.magnitudes.get(perturbation, np.inf)
    return float(published if np.isclose(magnitudes, published).any() else magnitudes.max())


def at_headline(evaluation: pd.DataFrame, perturbation: str, paper: Paper) -> pd.DataFrame:
    """The rows of one perturbation at its headline magnitude."""
    return _at(evaluation, perturbation, headline_magnitude(evaluation, perturbation, paper))


def _at(evaluation: pd.DataFrame, perturbation: str, magnitude: float) -> pd.DataFrame:
    near = np.isclose(evaluation["magnitude"], magnitude)
    return evaluation[(evaluation["perturbation"] == perturbation) & near]


def perturbation_order(evaluation: pd.DataFrame, paper: Paper) -> list[str]:
    """Evaluated perturbations: the paper's first, then the others by name."""
    present = set(evaluation["perturbation"])
    known = [name for name in paper.magnitudes if name in present]
    return known + sorted(present - set(known))


def nominal_scores(runs: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Success and return of every finished run on the unperturbed task, indexed by run.

    It is the mean over a run's rows of magnitude 0, whichever perturbation they belong to:
    magnitude 0 is the identity.
    """
    test = finished(runs, evaluation[evaluation["magnitude"] == 0])
    return test.groupby("run_id")[["success", "return_mean"]].mean()


def nominal_table(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    evaluation: pd.DataFrame,
    paper: Paper,
) -> pd.DataFrame:
    """Per method: the unperturbed task, tested (magnitude 0) and over the last 10 % of training."""
    test = nominal_scores(runs, evaluation)
    train = finished(runs, curves)
    train = train[train["frames"] > 0.9 * train["frames"].max()]
    train = train.groupby("run_id")["return_mean"].mean()
    rows = []
    for method in method_order(runs["method"], paper):
        ids = runs.loc[(runs["method"] == method) & (runs["status"] == "finished"), "run_id"]
        scores = test.reindex(ids)
        rows.append(
            {"method": method}
            | _summary("success", scores["success"])
            | _mean("return_mean", scores["return_mean"], FREE)
            | _mean("training_return", train.reindex(ids), FREE)
            | {"seeds": len(ids), "diverged": _diverged(runs, method)}
        )
    return pd.DataFrame(rows)


def success_table(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """Per perturbation (at its headline magnitude) and method: success every way it is measured.

    `success` is sampled over all instances, `success_solvable` over those with a path within the
    limit, `exact_*` come from dynamic programming (NaN where that cannot be computed): the mean,
    the worst and the mean of the worst 10 % of a policy's instances, each averaged over seeds.
    An environment where none of them can be has no such columns.
    """
    rows = []
    for perturbation in perturbation_order(evaluation, paper):
        at = at_headline(evaluation, perturbation, paper)
        for method, scores in _by_method(runs, at, paper):
            rows.append(
                {
                    "perturbation": perturbation,
                    "magnitude": headline_magnitude(evaluation, perturbation, paper),
                    "method": method,
                }
                | _summary("success", scores["success"])
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
    return _known_exactly(pd.DataFrame(rows))


def robustness_table(runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """Per perturbation and method: success over the whole range of magnitudes.

    `area` is the area under a run's curve of sampled success, `lowest` its lowest point, both then
    averaged over seeds; `exact_area` and `exact_worst` are the same of the exact success and of the
    worst instance.  Areas need two magnitudes and are NaN with one.
    """
    rows = []
    for perturbation in perturbation_order(evaluation, paper):
        selected = evaluation[evaluation["perturbation"] == perturbation]
        for method, scores in _by_method(runs, selected, paper):
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
                | _summary("area", pd.Series(_area(sampled)))
                | {
                    "lowest": sampled.min(axis=1).mean(),
                    "exact_area": pd.Series(_area(exact)).mean(),
                    "exact_worst": worst.min(axis=1).mean(),
                    "seeds": len(sampled),
                    "diverged": _diverged(runs, method),
                }
            )
    return _known_exactly(pd.DataFrame(rows))


def numbers_table(
    runs: pd.DataFrame, evaluation: pd.DataFrame, paper: Paper, level: float = 0.95
) -> pd.DataFrame:
    """Every success rate that the paper reports beside ours: mean and sample deviation over seeds.

    `difference` is ours minus the paper's with its Welch interval.  `verdict` is "compatible" if
    that interval holds 0, "differs" if not, "too few seeds" if ours (or the paper's) are fewer than
    two, "no spread" if the paper shows none, and "not tested" if no run was tested at its
    magnitude.
    """
    nominal = nominal_scores(runs, evaluation)["success"]
    rows = []
    for condition in paper.conditions:
        magnitude = 0.0 if condition == NOMINAL else float(paper.magnitudes[condition])
        for method in method_order(runs["method"], paper):
            if (published := paper.number(method, condition)) is None:
                continue
            if condition == NOMINAL:
                ids = runs.loc[runs["method"] == method, "run_id"]
                ours = nominal[nominal.index.isin(ids)].to_numpy(dtype=float)
            else:
                at = finished(runs, _at(evaluation, condition, magnitude))
                ours = at.loc[at["method"] == method, "success"].to_numpy(dtype=float)
            mean = ours.mean() if len(ours) else np.nan
            std = ours.std(ddof=1) if len(ours) > 1 else np.nan
            found = aggregate.welch_interval(mean, std, len(ours), *published, level=level)
            rows.append(
                {"condition": condition, "magnitude": magnitude, "method": method}
                | {"ours": mean, "ours_std": std, "ours_n": len(ours)}
                | {"paper": published.mean, "paper_std": published.std}
                | {"paper_n": published.n or pd.NA}
                | {"difference": found.value, "difference_low": found.low}
                | {"difference_high": found.high}
                | {"verdict": _number_verdict(len(ours), published, found)}
            )
    table = pd.DataFrame(rows)
    return table.astype({"paper_n": "Int64"}) if rows else table


def _number_verdict(n: int, published: Number, found: aggregate.Difference) -> str:
    if n == 0:
        return "not tested"
    if np.isnan(published.std):
        return "no spread"
    if np.isnan(found.low):
        return "too few seeds"
    return "compatible" if found.low <= 0 <= found.high else "differs"


def difference_table(
    runs: pd.DataFrame,
    evaluation: pd.DataFrame,
    paper: Paper,
    baselines: Iterable[str] = BASELINES,
) -> pd.DataFrame:
    """Success less that of a baseline's run of the same seed, at the headline magnitude.

    Pairs are the seeds that finished under both methods; `pairs` counts them, `probability` is the
    share that the method wins, ties half.  Intervals are bootstrap-t, each for itself: nothing
    corrects for how many there are.
    """
    columns = ["perturbation", "magnitude", "method", "baseline"]
    columns += ["difference", "difference_low", "difference_high", "pairs", "probability"]
    columns += ["differs"]
    rows = []
    methods = method_order(runs["method"], paper)
    baselines = [name for name in baselines if name in methods] or methods[:1]
    for perturbation in perturbation_order(evaluation, paper):
        magnitude = headline_magnitude(evaluation, perturbation, paper)
        scores = headline_scores(runs, evaluation, perturbation, paper)
        present = [baseline for baseline in baselines if baseline in scores]
        for i, baseline in enumerate(present):
            for method in scores:
                if method in present[: i + 1]:  # itself, or a pair that stands there reversed
                    continue
                found = intervals.paired_difference(scores[method], scores[baseline])
                wins = probability(scores[method], scores[baseline])
                differs = bool(found.low > 0 or found.high < 0)
                row = [perturbation, magnitude, method, baseline, *found, wins, differs]
                rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def headline_scores(
    runs: pd.DataFrame, evaluation: pd.DataFrame, perturbation: str, paper: Paper
) -> dict[str, dict[int, float]]:
    """Sampled success of every finished run at the headline magnitude: method -> seed -> score."""
    groups = _by_method(runs, at_headline(evaluation, perturbation, paper), paper)
    return {method: dict(zip(g["seed"], g["success"], strict=True)) for method, g in groups}


def probability(x: Mapping[int, float], y: Mapping[int, float]) -> float:
    """`statistics.probability_of_improvement` over the seeds that both sides have, NaN if none."""
    seeds = sorted(set(x) & set(y))
    if not seeds:
        return np.nan
    sides = ({seed: side[seed] for seed in seeds} for side in (x, y))
    return aggregate.probability_of_improvement(*sides)


def write_tables(
    frames: Mapping[str, pd.DataFrame], folder: Path, captions: Mapping[str, str] | None = None
) -> None:
    """Write every frame as `name.md`, `name.csv` (all columns, all digits) and `name.tex` (short).

    Raises:
      EntrobError: if a file cannot be written, or holds a character that LaTeX would not take.
    """
    for name, frame in frames.items():
        caption = (captions or {}).get(name, "")
        texts = {
            "md": markup.markdown(frame, caption),
            "tex": latex(frame, caption, name, SHORT.get(name)),
            "csv": frame.to_csv(index=False, lineterminator="\n"),
        }
        for suffix, text in texts.items():
            store.write_bytes(Path(folder) / f"{name}.{suffix}", text.encode())


def _known_exactly(table: pd.DataFrame) -> pd.DataFrame:
    """Without the exact columns where the environment is not finite: all are NaN."""
    names = [name for name in table if str(name).startswith("exact_")]
    return table.drop(columns=names) if table[names].isna().all(axis=None) else table


def _by_method(
    runs: pd.DataFrame, rows: pd.DataFrame, paper: Paper
) -> list[tuple[str, pd.DataFrame]]:
    """Rows of finished runs per method, empty for a method of which every run diverged."""
    rows = finished(runs, rows)
    groups = []
    for method in method_order(runs["method"], paper):
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


def _mean(name: str, scores: pd.Series, bounds: tuple[float, float]) -> dict[str, float]:
    found = intervals.t_interval(scores.to_numpy(dtype=float), bounds=bounds)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, found), strict=True))


def _summary(name: str, scores: pd.Series) -> dict[str, float]:
    values = scores.to_numpy(dtype=float)
    iqm = aggregate.interquartile_mean(values) if len(values) else np.nan
    low, high = aggregate.bootstrap_interval(values, aggregate.interquartile_mean)
    ends = {f"{name}_iqm_low": float(low), f"{name}_iqm_high": float(high)}
    return _mean(name, scores, RATE) | {f"{name}_iqm": float(iqm), **ends}


def _area(curves: pd.DataFrame) -> np.ndarray:
    if not len(curves):
        return np.empty(0)
    return aggregate.area_under_curve(curves.columns.to_numpy(), curves.to_numpy())
