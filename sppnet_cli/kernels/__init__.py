"""Kernels beside their definitions in plain torch: the pyramid, window pooling, within-channel LRN."""
