"""The folder of a run: what is written, how it is read back, and on what it was computed."""
