"""Bytes and RPyC: streams, frames, connections that are made and that are served. Knows no functions."""
