"""What an import mended and what it left out, counted by kind."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts by kind, the same by class where the class is known, and the first example of each kind."""

    mended: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    mended_of: Counter[str] = field(default_factory=Counter)  # by class
    left_out_of: Counter[str] = field(default_factory=Counter)  # by class
    examples: dict[str, str] = field(default_factory=dict)  # by kind

    def mend(self, kind: str, example: str, class_name: str | None = None) -> None:
        """Count one thing that was wrong but clear."""
        self.mended[kind] += 1
        self.examples.setdefault(kind, _printable(example))
        if class_name is not None:
            self.mended_of[class_name] += 1

    def leave_out(self, kind: str, example: str, class_name: str | None = None) -> None:
        """Count one thing that cannot be used."""
        self.left_out[kind] += 1
        self.examples.setdefault(kind, _printable(example))
        if class_name is not None:
            self.left_out_of[class_name] += 1


def _printable(text: str) -> str:
    """Text on one line that any stream takes: names of files may hold bytes that are no UTF-8."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
