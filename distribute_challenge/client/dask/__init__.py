"""The engine for a Dask cluster. Dask carries parcels to its workers; beside each, a pool runs them.

Nothing here is imported before an address begins with `dask://`.
"""
