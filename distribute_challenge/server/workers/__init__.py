"""The worker processes of a server: how they start, are kept alive, and end."""
