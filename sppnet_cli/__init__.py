"""SPP-net: reproduce, trust and use spatial pyramid pooling (He, Zhang, Ren, Sun 2014)."""

import os

__version__ = "0.1.0"

# oneDNN keeps buffers for each of the last 1,024 input shapes; in detection every image and scale has its own, and
# they add up to gigabytes.  Read when torch first convolves.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
# Between its products torch's threads would go on spinning, on the cores that our kernels and other processes want.  Read when
# torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Maps of tens of megabytes are made anew for every image; with pages of 4 KB a fifth of the time goes into getting them.
# Read when torch first asks for memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
