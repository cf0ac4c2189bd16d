"""The documentation: links, anchors and pages, in Markdown and in the site that Sphinx builds."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import relocal

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "bench").glob("*.md")])
_FENCED = re.compile(r"^([ \t]*)(`{3,}).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]*?\bsrc=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#* *$", re.MULTILINE)
_TOCTREE = re.compile(
    r"^```\{toctree\}\n(?P<options>(?::[^\n]*\n)*)(?P<entries>.*?)^```", re.M | re.S
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(markdown: str) -> list[str]:
    """What a page links to; code links nowhere."""
    prose = _CODE.sub("code", _FENCED.sub("", markdown))
    return [page or image for page, image in _LINK.findall(prose)]


def anchors(markdown: str) -> set[str]:
    """The anchors that code hosts give headings; of equal ones the second ends in -1."""
    found: Counter[str] = Counter()
    names: set[str] = set()
    for heading in _HEADING.findall(_FENCED.sub("", markdown)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def web_fault(link: str) -> str | None:
    """What is wrong with a link to the web, whose page is not asked for."""
    parts = urlsplit(link)
    host = parts.hostname or ""
    if parts.scheme != "https":
        return "is not https"
    sound = "." in host and not re.search(r"[^a-z0-9.-]", host) and not re.search(r"\s", link)
    return None if sound else "is not well formed"


def page_faults(page: Path, markdown: str) -> list[str]:
    """Links of a page that lead nowhere."""
    faults: list[str] = []
    for link in links(markdown):
        if re.match(r"[a-z][a-z+.-]*:", link):
            fault = web_fault(link)
            faults += [f"{link} {fault}"] if fault else []
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / unquote(path) if path else page
        if not target.exists():
            faults.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target.read_text("utf-8")):
            faults.append(f"{link}: no such heading")
    return faults


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    assert page_faults(page, page.read_text("utf-8")) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    here = tmp_path / "here.md"
    other = "# A\n\n## What `localize` prints\n\n## A & B, [c](d.md)?\n\n## A\n\n```\n# no\n```\n"
    (tmp_path / "other.md").write_text(other, "utf-8")
    sound = (
        "# Top of_it\n[a](other.md) [b](#top-of_it) ![c](other.md#what-localize-prints)\n"
        "[d](other.md#a--b-c) [e](other.md#a-1) [f](https://example.org/x#y)\n"
        "`[g](gone.md)`\n```\n[h](gone.md)\n```\n"
    )
    here.write_text(sound, "utf-8")
    assert page_faults(here, sound) == []
    for broken in (
        *("[a](gone.md)", "[a](#gone)", "[a](other.md#gone)", "[a](other.md#no)"),
        *("![a](gone.png)", '<img src="gone.png" height="3">', "[a](other.md#a-2)"),
        *("[a](http://example.org)", "[a](https://nowhere)", "[a](https:/example.org)"),
    ):
        assert len(page_faults(here, f"# Top\n{broken}\n")) == 1, broken


def public_names() -> set[str]:
    return set(relocal.__all__) - {"__version__"}


def documented_names() -> list[str]:
    text = "\n".join(page.read_text("utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    return re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: relocal\.(\w+)$", text, re.M)


def test_every_public_name_stands_in_the_reference_once() -> None:
    names = documented_names()
    assert set(names) == public_names()
    assert [name for name, count in Counter(names).items() if count > 1] == []


def entries(page: Path) -> Iterator[Path]:
    """The pages that a page's tables of contents name."""
    for tree in _TOCTREE.finditer(page.read_text("utf-8")):
        for line in filter(None, map(str.strip, tree["entries"].splitlines())):
            titled = re.fullmatch(r".*<(.+)>", line)
            yield (page.parent / f"{titled[1] if titled else line}.md").resolve()


def test_every_page_stands_in_a_table_of_contents() -> None:
    named = Counter(entry for page in PAGES for entry in entries(page))
    assert [relative(entry) for entry in named if not entry.exists()] == []
    pages = {*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("results/studies/*/study.md")}
    assert pages - {DOCS / "index.md"} - set(named) == set()
    assert [relative(entry) for entry, count in named.items() if count > 1] == []


@dataclass
class Html(HTMLParser):
    """What a built page links to, what it loads, and its ids."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag != "a":
            self.loads += [values[name] for name in ("href", "src") if name in values]


def read_html(path: Path) -> Html:
    page = Html()
    page.feed(path.read_text("utf-8"))
    return page


def site_faults(site: Path) -> list[str]:
    """Links of a site that lead nowhere, and what it would load from elsewhere."""
    pages = {path.resolve(): read_html(path) for path in sorted(site.rglob("*.html"))}
    faults: list[str] = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                fault = "is loaded from elsewhere" if link in page.loads else web_fault(link)
                faults += [f"{name}: {link} {fault}"] if fault else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                faults.append(f"{name}: {link}: no such file")
            elif anchor and target in pages and anchor not in pages[target].ids:
                faults.append(f"{name}: {link}: no such id")
    return faults


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that ``make docs`` has built, brought up to date, or a new one."""
    for package in ("furo", "myst_parser", "sphinx"):
        pytest.importorskip(package, reason="needs pip install '.[docs]' (make docs)")
    out = ROOT / "build" / "docs"
    if not out.exists():
        out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-c", "docs"]
    built = subprocess.run(
        [*command, ".", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return out


@pytest.mark.docs
@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) > len(PAGES)
    assert site_faults(site) == []


@pytest.mark.docs
@pytest.mark.slow
def test_site_says_what_docstrings_say(site: Path) -> None:
    """Names have their places, and a field's text is not taken for its type."""
    ids = {i for path in (site / "docs" / "api").glob("*.html") for i in read_html(path).ids}
    assert {f"relocal.{name}" for name in public_names()} - ids == set()
    assert {"relocal.TrainConfig.freeze", "relocal.Pose.position"} <= ids
    losses = {
        *(f"{loss.__module__}.{loss.__name__}" for loss in relocal.LOSSES.values()),
        *(f"{term.__module__}.{term.__name__}" for term in relocal.COUPLED.values()),
    }
    assert losses - ids == set()
    text = re.sub(r"<[^>]+>", "", (site / "docs" / "api" / "training.html").read_text("utf-8"))
    assert "Part of the backbone that is not trained: nothing, its stem, all." in text


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a><img src="p.png">', "utf-8")
    (tmp_path / "b.html").write_text(
        '<p id="x"><a href="#x"></a><a href="https://a.org/">', "utf-8"
    )
    (tmp_path / "p.png").write_bytes(b"")
    assert site_faults(tmp_path) == []
    for broken in (
        *('<a href="gone.html">', '<a href="b.html#gone">', '<a href="#gone">'),
        *('<img src="gone.png">', '<script src="https://a.org/x.js">', '<a href="http://a.org/">'),
    ):
        (tmp_path / "c.html").write_text(broken, "utf-8")
        assert len(site_faults(tmp_path)) == 1, broken
