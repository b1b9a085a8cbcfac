"""Features: pooled vectors of whole images and of windows."""
