"""Ant's speed: steps/s of `mujoco/ant` against brax's, Gymnasium's and EnvPool's, in one run.

    python benchmarks/speed/ant.py [--copies 1,32,256,1024] [--out ant.json]

How they take turns: contest.py. All have the floor alone; Gymnasium's and EnvPool's observe 78
contact forces besides, brax's "ant" has other contacts and, but for `mjx`, other physics.
"""

from contest import Task, arguments, rates, save

TASK = Task("mujoco/ant", {}, "Ant-v5", "ant", 1000)


def main() -> None:
    """Print a table; add it to the JSON that ``--out`` names."""
    options = arguments(__doc__, "1,32,256,1024").parse_args()
    save(options.out, "rows", rates(TASK, options))


if __name__ == "__main__":
    main()
