"""SPP-net: reproduce, trust and use spatial pyramid pooling (He, Zhang, Ren, Sun 2014)."""

import os

__version__ = "0.1.0"

# oneDNN keeps buffers for each of the last 1,024 input shapes; in detection every image and scale has its own, and
# they add up to gigabytes.  Read when torch first convolves.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
