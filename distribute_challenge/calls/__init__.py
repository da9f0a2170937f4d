"""Calls and outcomes: their formats, and how a call is run. Knows no sockets."""
