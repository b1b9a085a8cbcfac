"""Benchmarks: our speed beside the strongest peer's and the machine's limits, in one run.

Each is a function `benchmark_<subject>(config, ...) -> Benchmark`.  The sides take turns, so that other load on the
machine slows all of them, and the median of the repeats counts.
"""
