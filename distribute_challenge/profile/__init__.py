"""The profile: one CSV file for each run of a server. It knows nothing of the pool."""
