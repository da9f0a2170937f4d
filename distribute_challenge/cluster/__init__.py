"""The record of a Dask cluster: what its workers run, in the files, pages and calls of a server's pool.

It watches, and gives out no work. Nothing here is imported before `--engine dask` is said.
"""
