"""One page that shows what was measured: of a folder of results, or of one run."""
