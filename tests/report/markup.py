"""Reads a page as strictly as a validator would: which elements, ids and addresses it has, and what does not fit."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """`faults` says what is not closed; `ids`, `links` (href and src) and `elements` what there is."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.elements, self.faults = [], [], [], []
        self._open, self._svg, self.words = [], 0, []
        self.feed(text)
        self.close()
        self.faults += [f"<{name}> is not closed" for name in self._open]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if len(values) < len(attributes):
            self.faults.append(f"<{tag}> has an attribute twice: {attributes}")
        self.elements.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self.words.append(data)

    @property
    def text(self):
        """What a reader reads, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def of_class(self, name):
        """The attributes of the elements of a class."""
        return [values for _, values in self.elements if name in (values.get("class") or "").split()]


def require_sound(path):
    """The page in a file, after the checks that hold for every page."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.faults == []
    assert len(set(page.ids)) == len(page.ids)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert anchors
    assert set(anchors) <= set(page.ids)
    elsewhere = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert elsewhere == ["https://arxiv.org/abs/1406.4729"]  # a plain link in the last line
    assert "url(http" not in text
    assert "@import" not in text
    assert path.stat().st_size < 5_000_000
    return page
