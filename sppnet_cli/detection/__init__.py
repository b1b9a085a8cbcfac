"""Detection: a detector as one thing, and non-maximum suppression."""
