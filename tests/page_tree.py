"""A page of HTML as a tree, and what must hold of every page."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    def all(self, *tags: str) -> "Iterator[Element]":
        """The elements below with one of these tags, or all."""
        for child in self.children:
            if isinstance(child, Element):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text() for c in self.children)


class Tree(HTMLParser):
    """Builds the tree of a page, and refuses what is not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert self.open == [self.root], f"left open: {self.open[-1].tag}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def check_shape(page: Element) -> None:
    """What must hold of every page."""
    count = Counter(element.tag for element in page.all())
    assert (count["html"], count["title"], count["h1"], count["main"]) == (1, 1, 1, 1)
    assert next(page.all("html")).attributes["lang"] == "en"
    for table in page.all("table"):
        assert len(list(table.all("caption"))) == 1
        width = len(list(next(table.all("thead")).all("th")))
        for row in next(table.all("tbody")).all("tr"):
            assert len(list(row.all("td", "th"))) == width
    assert {th.attributes.get("scope") for th in page.all("th")} == {"col", "row"}
    for svg in page.all("svg"):
        assert svg.attributes["role"] == "img"
        assert len(svg.attributes["aria-label"]) > 30
        assert next(svg.all("path"), None) is not None
    assert all(image.attributes["alt"] for image in page.all("img"))
    names = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(names) == len(set(names))


def check_alone(page: Element, text: str) -> None:
    """The page asks for nothing: no address in it but its own parts and data."""
    assert "://" not in text
    assert "@import" not in text
    for element in page.all():
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert value.startswith(("data:image/", "#")), value[:40]
            assert all(target.startswith("#") for target in re.findall(r"url\((.)", value))
