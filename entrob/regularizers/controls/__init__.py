"""Controls: noise in the place of a method, tuned and tested like one, of which nothing is claimed.

What they gain or lose is what any method of no merit may.
"""

from entrob.regularizers.controls.placebo import placebo_loss, placebo_reward

#: Factories in the order in which they are listed.
FACTORIES = (placebo_reward, placebo_loss)
