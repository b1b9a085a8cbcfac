"""The paper's tables, one readable file each."""

import sppnet_cli as sppnet_cli  # before torch, which reads what it sets
