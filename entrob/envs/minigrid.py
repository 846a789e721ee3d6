"""Grids with walls, lava and one goal: the pure twin of Farama MiniGrid's.

Coordinates are ``(x, y)`` with x to the right and y down, as in MiniGrid; arrays over cells are
indexed ``[x, y]`` and include the border. Directions are 0 right, 1 down, 2 left, 3 up; actions
are 0 turn left, 1 turn right, 2 forward.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from entrob.envs.environment import Environment
from entrob.errors import EntrobError
from entrob.ranges import SHARE, Range

# (object, color, state) codes of MiniGrid: an empty cell, a gray wall, a green goal, red lava.
EMPTY, WALL, GOAL, LAVA = (1, 0, 0), (2, 5, 0), (8, 1, 0), (9, 0, 0)
# Each packed in one word, its fourth byte 0, so that a grid is laid out and turned as words.
CODES = np.array([(*code, 0) for code in (EMPTY, WALL, GOAL, LAVA)], np.uint8)
EMPTY_WORD, WALL_WORD, GOAL_WORD, LAVA_WORD = CODES.view(np.uint32).ravel()
# One step forward in each direction.
FORWARD = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int32)
NUM_DIRECTIONS = 4
_CELL = Range(0, whole=True)


@struct.dataclass
class EnvState(environment.EnvState):
    """Where the agent is.

    Attributes:
      time: int32[], steps since the episode began.
      pos: int32[2], the agent's cell (x, y).
      dir: int32[], the agent's direction, 0..3.
    """

    time: jax.Array
    pos: jax.Array
    dir: jax.Array


@struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """One layout; every field is a traced leaf.

    Attributes:
      walls: bool[W, H] indexed [x, y], the border included and always wall.
      goal_pos: int32[2], (x, y) of the goal.
      start_pos: int32[2], (x, y) where an episode begins.
      start_dir: int32[], direction in which it begins.
      reward_decay: float32[], read in thousandths; the goal pays
        ``1 - reward_decay * time / max_steps_in_episode``: 0 is the paper's sparse reward, 0.9 is
        MiniGrid's.
      max_steps_in_episode: int32[], truncation.
      lava: bool[W, H] indexed [x, y], cells that end an episode without reward; a wall on lava is
        a wall. None in rooms that have none, whose programs then know nothing of it.
    """

    walls: jax.Array
    goal_pos: Annotated[jax.Array, _CELL]
    start_pos: Annotated[jax.Array, _CELL]
    start_dir: Annotated[jax.Array | int, Range(0, NUM_DIRECTIONS - 1, whole=True)] = 0
    reward_decay: Annotated[jax.Array | float, SHARE] = 0.0
    max_steps_in_episode: jax.Array | int = 200
    lava: jax.Array | None = None


def empty_params(width: int, height: int, max_steps: int = 200) -> EnvParams:
    """An empty room: start in the top-left corner facing right, goal in the bottom-right one."""
    walls = np.ones((width, height), bool)
    walls[1:-1, 1:-1] = False
    return EnvParams(
        walls=jnp.asarray(walls),
        goal_pos=jnp.array([width - 2, height - 2], jnp.int32),
        start_pos=jnp.array([1, 1], jnp.int32),
        start_dir=jnp.array(0, jnp.int32),
        reward_decay=jnp.array(0.0, jnp.float32),
        max_steps_in_episode=jnp.array(max_steps, jnp.int32),
    )


class MiniGrid(Environment):
    """A room with walls, lava and one goal, seen through MiniGrid's egocentric window.

    Observation: uint8[view, view, 3], (object, color, state) codes of the cells around the agent,
    rotated so that it looks "up" from the middle of the last row; walls are transparent and cells
    outside the grid read as wall.
    Action: int in 0..2 (turn left, turn right, forward).
    Reward: ``1 - reward_decay * time / max_steps`` on entering the goal, else 0.
    Termination: on entering the goal or lava. Truncation: at `max_steps_in_episode`.

    Args:
      width: cells from left to right, the border included.
      height: cells from top to bottom, the border included.
      view: side of the egocentric window, odd.
      nominal: the default params, of that width and height; None is an empty room.
    """

    #: Observations depend on nothing but `state_index` and the params, so they fit a table.
    finite = True
    #: What acts on these observations, see `entrob.agents.model.NETWORKS`.
    network = "minigrid"

    def __init__(
        self, width: int = 10, height: int = 10, view: int = 7, nominal: EnvParams | None = None
    ):
        if width < 4 or height < 4 or view < 3 or view % 2 == 0:
            raise ValueError("width and height must be at least 4 and view odd, at least 3")
        self.width, self.height, self.view = width, height, view
        self._nominal = nominal
        # Padded by view-1 on every side, the window never leaves the grid.
        self._pad = view - 1
        # Window column i lies i - view//2 to the agent's right, row j lies view-1-j ahead.
        self._own = np.zeros((view, view, 1), bool)
        self._own[view // 2, view - 1] = True

    @property
    def default_params(self) -> EnvParams:
        return empty_params(self.width, self.height) if self._nominal is None else self._nominal

    @property
    def name(self) -> str:
        return f"MiniGrid-{self.width}x{self.height}"

    @property
    def num_actions(self) -> int:
        return 3

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(3)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        return spaces.Box(0, 10, (self.view, self.view, 3), jnp.uint8)

    def state_space(self, params: EnvParams | None = None) -> spaces.Dict:
        return spaces.Dict(
            {
                "time": spaces.Discrete(2**31 - 1),
                "pos": spaces.Box(1, max(self.width, self.height) - 2, (2,), jnp.int32),
                "dir": spaces.Discrete(NUM_DIRECTIONS),
            }
        )

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Begin an episode: (observation uint8[view, view, 3], state). The key is not used."""
        state = EnvState(
            time=jnp.zeros((), jnp.int32),
            pos=jnp.asarray(params.start_pos, jnp.int32),
            dir=jnp.asarray(params.start_dir, jnp.int32),
        )
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One move: (observation, state, reward float32[], terminated bool[], info)."""
        turn = jnp.where(action == 0, -1, jnp.where(action == 1, 1, 0))
        front = state.pos + jnp.asarray(FORWARD)[state.dir]
        moves = (action == 2) & ~params.walls[front[0], front[1]]
        pos = jnp.where(moves, front, state.pos)
        state = EnvState(time=state.time + 1, pos=pos, dir=(state.dir + turn) % NUM_DIRECTIONS)
        success = moves & jnp.all(pos == params.goal_pos)
        # No float32 is 0.9, and 1 - 0.9 * time / limit would be several ulp off near the limit. In
        # thousandths everything but the division is exact, so the reward is MiniGrid's, rounded.
        limit = 1000.0 * params.max_steps_in_episode
        left = limit - jnp.round(1000.0 * params.reward_decay) * state.time
        reward = jnp.where(success, left / limit, 0.0)
        terminated = success
        if params.lava is not None:
            terminated |= moves & params.lava[pos[0], pos[1]]
        observation = self.get_obs(state, params)
        return observation, state, reward.astype(jnp.float32), terminated, {}

    def get_obs(self, state: EnvState, params: EnvParams, key: Any = None) -> jax.Array:
        """The egocentric window: uint8[view, view, 3]."""
        pad, view = self._pad, self.view
        floor = EMPTY_WORD if params.lava is None else jnp.where(params.lava, LAVA_WORD, EMPTY_WORD)
        grid = jnp.where(params.walls, WALL_WORD, floor)
        grid = grid.at[params.goal_pos[0], params.goal_pos[1]].set(GOAL_WORD)
        # Turned so that each direction points up, the window is one block of a table that depends
        # on the params alone: a compiled loop builds it once, and copying a block is several times
        # faster than looking its cells up one by one.
        last = max(self.width, self.height) - 1 + 2 * pad
        margins = [(pad, last + 1 - pad - n) for n in grid.shape]
        grid = jnp.pad(grid, margins, constant_values=WALL_WORD)
        table = jnp.stack([jnp.rot90(grid, 3 - d) for d in range(NUM_DIRECTIONS)])
        table = jax.lax.bitcast_convert_type(table, jnp.uint8)[..., :3]

        # The agent's cell in the turned grid: (y, -x), (-x, -y), (-y, x), (x, y).
        x, y, direction = state.pos[0] + pad, state.pos[1] + pad, state.dir
        sideways = direction % 2 == 0
        across, along = jnp.where(sideways, y, x), jnp.where(sideways, x, y)
        across = jnp.where((direction == 1) | (direction == 2), last - across, across)
        along = jnp.where(direction < 2, last - along, along)
        corner = (direction, across - view // 2, along - view + 1, 0)
        window = jax.lax.dynamic_slice(table, corner, (1, view, view, 3))[0]
        # The agent's own cell shows what it carries, which is nothing, even on the goal.
        return jnp.where(self._own, np.array(EMPTY, np.uint8), window)

    def pictures(self, params: EnvParams, states: EnvState) -> np.ndarray:
        """The layout with the agent in it, as a picture of each state: uint8[T, 32 H, 32 W, 3]."""
        from entrob.envs.render import render_episode  # draws this class

        return np.array(render_episode(self, params, states))

    def check_params(self, params: EnvParams) -> None:
        """Raise `EntrobError` unless the border is wall and start and goal are two free cells."""
        super().check_params(params)
        walls = np.asarray(params.walls)
        if not (walls[[0, -1]].all() and walls[:, [0, -1]].all()):
            raise EntrobError(f"{self.name}: the border of walls must be closed")
        taken: dict[str, Any] = {"a wall": walls, "lava": params.lava}
        for name in ("start_pos", "goal_pos"):
            cell = x, y = tuple(np.asarray(getattr(params, name)).tolist())
            if not (x < walls.shape[0] and y < walls.shape[1]):
                raise EntrobError(f"{self.name}: {name} {cell} is outside of the grid")
            for what, cells in taken.items():
                if cells is not None and cells[x, y]:
                    raise EntrobError(f"{self.name}: {name} {cell} is {what}")
            taken["the start"] = np.zeros_like(walls)
            taken["the start"][x, y] = True

    def cell(self, state: EnvState) -> jax.Array:
        """Where the agent is: int32[2]."""
        return state.pos

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        success = self.is_success(state, params)
        if params.lava is None:
            return success
        return success | params.lava[state.pos[0], state.pos[1]]

    def is_success(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the agent is on the goal: bool[]."""
        return jnp.all(state.pos == params.goal_pos)

    def entropy_features(self, state: EnvState, params: EnvParams) -> jax.Array:
        """What state entropy is measured on (paper, B.2): (x, y, one-hot direction), float32[6]."""
        direction = jax.nn.one_hot(state.dir, NUM_DIRECTIONS)
        return jnp.concatenate([state.pos.astype(jnp.float32), direction])

    @property
    def num_states(self) -> int:
        """How many states there are, time apart: interior cells × directions."""
        return (self.width - 2) * (self.height - 2) * NUM_DIRECTIONS

    def states(self, params: EnvParams) -> EnvState:
        """Every state, time apart, in the order of `state_index`; leaves have shape [S, ...]."""
        x, y, d = np.meshgrid(
            np.arange(1, self.width - 1),
            np.arange(1, self.height - 1),
            np.arange(NUM_DIRECTIONS),
            indexing="ij",
        )
        return EnvState(
            time=jnp.zeros(self.num_states, jnp.int32),
            pos=jnp.asarray(np.stack([x.ravel(), y.ravel()], 1), jnp.int32),
            dir=jnp.asarray(d.ravel(), jnp.int32),
        )

    def state_index(self, state: EnvState) -> jax.Array:
        """The position of a state in `states`: int32[] in 0..S-1."""
        cell = (state.pos[0] - 1) * (self.height - 2) + state.pos[1] - 1
        return cell * NUM_DIRECTIONS + state.dir
