"""The clock that everything timed is timed by."""

import time

import torch


class Clock:
    """Seconds between laps, each of which first waits until the device has done its work."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._last = self._now()

    def lap(self) -> float:
        """Seconds since the last lap, or since the clock was made."""
        now = self._now()
        seconds, self._last = now - self._last, now
        return seconds

    def _now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        elif self._device == "mps":
            torch.mps.synchronize()
        return time.perf_counter()
