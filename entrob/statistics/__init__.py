"""From tidy records to estimates and their intervals; nothing here draws or writes text."""
