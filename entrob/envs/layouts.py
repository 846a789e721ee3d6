"""Grids with two or more routes to the goal, as drawings.

``#`` is a wall, ``~`` lava, ``S`` the start, ``G`` the goal, a space is free; column x, row y.
"""

import textwrap

import jax.numpy as jnp
import numpy as np

from entrob.envs.minigrid import EnvParams, MiniGrid, empty_params

#: Two routes that share no cell: the upper one takes 14 actions, the lower one 20. A wall from the
#: top, in whatever column, shuts the upper one.
TWO_PATHS = """
    ##########
    #        #
    #  ####  #
    #S #### G#
    #  ####  #
    #  ####  #
    #  ####  #
    #  ####  #
    #        #
    ##########
"""

#: MiniGrid's FourRooms, which draws doors, start and goal at random, with fixed ones: doors at
#: (9, 6), (9, 12), (6, 9), (12, 9), from a room to the one across, by either of the other two. A
#: random walk of 400 steps gets there in 2 % of its episodes.
FOUR_ROOMS = """
    ###################
    #        #        #
    #        #        #
    #        #        #
    #        #        #
    #    S   #        #
    #                 #
    #        #        #
    #        #        #
    ###### ##### ######
    #        #        #
    #        #        #
    #                 #
    #        #   G    #
    #        #        #
    #        #        #
    #        #        #
    #        #        #
    ###################
"""

#: MiniGrid's LavaCrossing of size 9 with two rivers, which have two gaps of two cells each instead
#: of one of one: a random walk crosses both in 1.6 % of its episodes, enough to learn from.
LAVA_CROSSING = """
    #########
    #S      #
    #       #
    #~  ~  ~#
    #       #
    #~  ~  ~#
    #       #
    #      G#
    #########
"""


def drawn(drawing: str, max_steps: int = 200) -> MiniGrid:
    """The grid of a drawing, on which an episode begins facing right and takes `max_steps` at most.

    Raises:
      ValueError: rows of different lengths, an unknown character, or not one start and one goal.
    """
    rows = textwrap.dedent(drawing).strip("\n").split("\n")
    if len({len(row) for row in rows}) != 1 or not set("".join(rows)) <= set("#~SG "):
        raise ValueError("a drawing has rows of one length, of the characters '#~SG '")
    cells = np.array([list(row) for row in rows]).T
    width, height = cells.shape
    ends = {}
    for field, character in (("start_pos", "S"), ("goal_pos", "G")):
        found = np.argwhere(cells == character)
        if len(found) != 1:
            raise ValueError(f"a drawing has one {character}, not {len(found)}")
        ends[field] = jnp.asarray(found[0], jnp.int32)
    lava = cells == "~"
    params: EnvParams = empty_params(width, height, max_steps).replace(
        walls=jnp.asarray(cells == "#"), lava=jnp.asarray(lava) if lava.any() else None, **ends
    )
    return MiniGrid(width, height, nominal=params)
