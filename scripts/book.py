#!/usr/bin/env python3
"""Helps scripts/book.sh.

    scripts/book.py sources         the files of the book: pages, pictures, and the files that pages link to
    scripts/book.py check FOLDER    fails if a link, an anchor or a picture of the built book is broken
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs/SUMMARY.md"
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def links(page):
    """The files of this repository that a page of Markdown links to."""
    for match in LINK.finditer(BLOCK.sub("", page.read_text())):
        link = urlsplit(match[1] or match[2])
        if link.path and not link.scheme and not link.netloc:
            yield (page.parent / unquote(link.path)).resolve()


def sources():
    listed = list(links(LIST))
    missing = sorted(set((ROOT / "docs").glob("*.md")) - set(listed) - {LIST})
    if missing:
        sys.exit(f"book.py: not in docs/SUMMARY.md: {', '.join(page.name for page in missing)}")
    found = {LIST, *listed}
    for page in listed:
        for file in links(page):
            if file.is_relative_to(ROOT) and file.is_file():
                found.add(file)
    return sorted(str(file.relative_to(ROOT)) for file in found)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src") and tag not in ("base", "use") and value is not None:
                self.links.append(value)


def check(book):
    pages = {path: Page(path.read_text()) for path in book.rglob("*.html")}
    broken, seen = [], 0
    for path, page in pages.items():
        if path.name in ("404.html", "toc.html"):
            continue  # their links are relative to another address
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            seen += 1
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target.is_dir():
                target = target / "index.html"
            leads = target.is_file() and target.is_relative_to(book)
            anchor = unquote(url.fragment)
            if leads and target in pages and anchor not in pages[target].anchors:
                leads = False
            if leads and target.suffix == ".md":
                leads = False  # a page that is not in the book
            if not leads:
                broken.append(f"{path.relative_to(book)}: {link}")
    if not seen:
        sys.exit("book.py: the book has no links")
    if broken:
        sys.exit("book.py: these lead nowhere:\n  " + "\n  ".join(broken))
    print(f"book.sh: target/book/index.html: {len(pages)} pages, {seen} links checked")


if __name__ == "__main__":
    if sys.argv[1:] == ["sources"]:
        print("\n".join(sources()))
    elif len(sys.argv) == 3 and sys.argv[1] == "check":
        check(Path(sys.argv[2]).resolve())
    else:
        sys.exit(__doc__)
