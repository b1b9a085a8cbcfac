"""The network: convolutional trunk, its geometry, the spatial pyramid and the fully connected head."""
