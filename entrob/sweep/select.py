"""Narrowing an experiment down to what the command line asks for."""

import dataclasses

from entrob.errors import EntrobError
from entrob.naming import BASELINE
from entrob.regularizers import build, check_coefficient, load, regularizers
from entrob.sweep.experiment import Experiment, Method
from entrob.sweep.reading import coefficient, tested_magnitudes


def select_methods(
    experiment: Experiment, references: tuple[str, ...], coefs: str | None
) -> Experiment:
    """Keep ``none`` and the methods named; add a method per coefficient of each regularizer.

    Args:
      experiment: what the file declares.
      references: names of its methods, registered regularizers, or ``module:function``.
      coefs: comma-separated coefficients; by default the declared method or the regularizer's
        own default.

    Raises:
      EntrobError: an unknown name, a module that does not import, a coefficient that is negative,
        no number or outside the regularizer's domain, or coefficients without a regularizer.
    """
    if coefs is not None and not references:
        raise EntrobError("--coef needs a --regularizer")
    if not references:
        return experiment
    declared = {BASELINE: Method(BASELINE), **{m.name: m for m in experiment.methods}}
    chosen = {BASELINE: declared[BASELINE]}
    for reference in references:
        if coefs is None and reference in declared:
            chosen[reference] = declared[reference]
            continue
        name = load(reference)
        # What the task gives to all methods, none has.
        base = declared.get(name, dataclasses.replace(declared[BASELINE], base=name))
        if coefs is None:
            value = regularizers.get(name)().coef
            chosen[name] = dataclasses.replace(base, coefficients={name: value})
            continue
        for text in coefs.split(","):
            part = build(name, **base.options.get(name, {}))
            value = check_coefficient(part, coefficient(name, text.strip()))
            coefficients = {**base.coefficients, name: value}
            method = dataclasses.replace(base, value=f"{value:g}", coefficients=coefficients)
            chosen[method.name] = method
    return dataclasses.replace(experiment, methods=tuple(chosen.values()))


def select_perturbations(experiment: Experiment, names: tuple[str, ...]) -> Experiment:
    """Keep the perturbations named; one that the experiment lacks is tested over its range.

    Raises:
      EntrobError: unknown perturbation, or one that acts in training only.
    """
    from entrob.perturbations import perturbations

    if not names:
        return experiment
    env_params = experiment.task.noisy_params
    chosen = {}
    for name in names:
        entry = perturbations.get(name, env_params)
        low, high = entry.range(env_params)
        middle = round((low + high) / 2, 0 if entry.integer else 6)
        middle = middle if entry.paper is None else min(entry.paper, high)
        default = tuple(sorted({0.0, float(middle), float(high)}))
        declared = experiment.perturbations.get(name)
        chosen[name] = declared or tested_magnitudes(name, default, env_params)
    return dataclasses.replace(experiment, perturbations=chosen)
