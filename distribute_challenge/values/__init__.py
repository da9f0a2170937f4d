"""How functions, classes and values are written, by name or by value, and made again. Knows no calls."""

PROTOCOL = 5  # of pickle: the first with buffers beside the pickle
