"""Programs that the tests run, on several versions of Python."""
