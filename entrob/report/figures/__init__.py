"""Figures: each module draws one kind, from tidy frames; `drawing` holds what they share."""
