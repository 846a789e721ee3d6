"""The paper's Ant: `environment` is the task, the rest its physics."""

from entrob.envs.mujoco.ant.environment import Ant, AntParams, AntState

__all__ = ["Ant", "AntParams", "AntState"]
