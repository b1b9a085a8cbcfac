"""A part of the page."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """What a template shows.

    Attributes:
        id: its anchor.
        title: its heading, and its line in the list of contents.
        lead: one sentence that says what the reader is to see.
        template: a file of `templates/`, which sees the section as `section`.
        data: what that template shows, by its names.
    """

    id: str
    title: str
    lead: str
    template: str
    data: dict[str, Any]
