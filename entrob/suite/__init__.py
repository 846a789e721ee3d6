"""The leaderboard: several tasks, each calibrated, tuned, trained and tested in turn."""
