"""SPP-net: reproduce, trust and use spatial pyramid pooling (He, Zhang, Ren, Sun 2014)."""

__version__ = "0.1.0"
