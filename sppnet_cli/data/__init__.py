"""Images, annotations and window proposals, read from the layouts in which the datasets are published."""
