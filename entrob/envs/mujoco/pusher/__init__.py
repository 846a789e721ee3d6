"""The paper's Pusher: `environment` is the task, the rest its physics."""

from entrob.envs.mujoco.pusher.environment import Pusher, PusherParams, PusherState

__all__ = ["Pusher", "PusherParams", "PusherState"]
