"""The stages: plain functions `stage(config, inputs, out)` that fill a run directory each."""
