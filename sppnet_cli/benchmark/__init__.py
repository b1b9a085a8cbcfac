"""Benchmarks: our speed beside the strongest peer's and the machine's limits, in one run.

Each is a function `benchmark_<subject>(config, ...) -> Benchmark`.  The sides take turns, so that what else the machine
does falls on all of them, and of several repeats the median counts.
"""
