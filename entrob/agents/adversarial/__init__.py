"""Second players: who they are, what they may do, and how they learn in turn with the agent."""
