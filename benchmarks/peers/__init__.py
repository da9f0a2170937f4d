"""This pool beside others: the same functions, two workers each, in one run.

    python -m benchmarks.peers [--quick] [--only CASE or PEER ...] [--rounds 5]

How it is measured. Each peer has a client process of its own (`client.py`), which knows that peer alone, and
measures when it is told to: only one of them works at any time. A run consists of rounds. In each:

1. The *light* peers, which cost nothing while they are idle, are alive together, for the whole run. They take
   turns (A B C A B C ...) several times in each case; each round begins with another of them.
2. The *heavy* peers (Dask, Ray, ipyparallel) keep a processor busy while they are idle. So each is started,
   measured in every case and stopped, one after another, and what they leave behind is ended before the next.
3. "From nothing to the first result" is the time from starting the client process to the result of a no-op
   in it: interpreter, imports, workers and all. The pool is `local://2` there; in all other cases it
   is `server.py 2` as anyone would start it, with its profile.

Each turn begins with a few calls that do not count. A peer's value in a round is the median of its turns, and
its value in the run the median of the rounds. A ratio is taken within each round; the ratio of the run is the
median of those. Chunks: each peer is tried with 1, 10, 100 and 1000 in the first round, and measured with the
best; this pool chooses for itself.

Only ratios are promised. What one machine does in a second says nothing about the next.
"""
