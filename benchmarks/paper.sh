#!/usr/bin/env bash
# The paper's Pusher and Ant figures, in the order of what they tell; each run goes on where it ended.
#
#     bash benchmarks/paper.sh [FOLDER] [PRESET]
#
# FOLDER is where runs and reports go (runs), PRESET paper or smoke.
set -euo pipefail
folder=${1:-runs} preset=${2:-paper}
run() { # EXPERIMENT SEEDS [METHOD...]
  local name=$1 seeds=$2 method arguments=()
  shift 2
  for method in "$@"; do arguments+=(--regularizer "$method"); done
  [ "$preset" = paper ] && arguments+=(--seeds "$seeds")
  entrob run "$name" --preset "$preset" --out "$folder/$name/$preset" "${arguments[@]}"
}
run pusher 10 policy_entropy state_entropy           # Figures 1 and 5a
run pusher 3 pr_mdp nr_mdp domain_randomization      # their baselines
run pusher_fidelity 3                                # text against code, its floor of a variance among it
entrob tune ant --preset "$preset" --out "$folder/ant/tune-$preset"
run ant 3                                            # Figure 6, with what tuning chose in ant.toml
run pusher_rollouts 2                                # Figure 5b
run pusher_temperature 2                             # Figure 5c
run pusher_interplay 2                               # Figures 8 and 9
