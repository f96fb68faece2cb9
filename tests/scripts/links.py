#!/usr/bin/env python3
"""Looks for dead links in the project's Markdown files, without the network and without anything but Python and git.

    tests/scripts/links.py             all Markdown files of the repository
    tests/scripts/links.py FILE…       some of them
    tests/scripts/links.py --linked    prints the pages of the site and the files that they link to, a line each
    tests/scripts/links.py --site DIR  the pages of a built site (site.sh): links and anchors of its HTML
    tests/scripts/links.py --itself    plants links that are dead and links that are not, and looks whether it can tell them apart

A link must lead to a file or folder of the repository, spelled as it is there; its part behind `#` to a heading of that page, with
the name that GitHub gives it, or to a line of a file that is no page (`#L12`). Links to other hosts are counted and not asked for.
Code is no link. Every page of docs/ must stand in docs/SUMMARY.md, or the site would not have it. Exit status 1 if a link is dead.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse
from html.parser import HTMLParser

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
# [text](target "title") and ![text](target); a target in <> may have spaces.
INLINE = re.compile(r"\]\(\s*(<[^>]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+[\"'(][^)]*)?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+(\S+)")
ANCHOR = re.compile(r"<[a-zA-Z]+[^>]*\s(?:id|name)=[\"']([^\"']+)[\"']")
LINES = re.compile(r"^L(\d+)(?:-L(\d+))?$")


def lines_without_fences(text):
    """The lines with their numbers from 1, those of fenced code left out."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        # A fence inside a list is indented with it.
        mark = FENCE.match(line) or FENCE.match(line.lstrip())
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def without_code(line):
    """The line with spaces where code stands between backticks."""
    return re.sub(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", lambda code: " " * len(code[0]), line)


def anchor_of(heading):
    """The name that GitHub gives a heading: its text in small letters, of other characters only hyphens and underscores."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]*>", "", text).replace("`", "").replace("*", "")
    return "".join("-" if c == " " else c for c in text.strip().lower() if c.isalnum() or c in " -_")


def anchors_of(text):
    """All that a `#` may lead to in a page."""
    found, seen = set(), {}
    for _, line in lines_without_fences(text):
        heading = HEADING.match(line)
        if heading:
            name = anchor_of(heading[2])
            count = seen.get(name, 0)
            seen[name] = count + 1
            found.add(f"{name}-{count}" if count else name)
        found.update(ANCHOR.findall(without_code(line)))
    return found


def links_of(text):
    """Each link with the number of its line."""
    for number, line in lines_without_fences(text):
        line = without_code(line)
        for target in INLINE.findall(line) + REFERENCE.findall(line):
            yield number, target.strip("<>")


class Repository:
    """The files of the repository: what git knows or would take, as paths from its top."""

    def __init__(self, top):
        self.top = top
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                cwd=top, check=True, capture_output=True, text=True).stdout
        self.files = {name for name in listed.split("\0") if name and os.path.exists(top / name)}
        self.folders = {str(parent) for name in self.files for parent in pathlib.PurePosixPath(name).parents}
        self.anchors = {}

    def text(self, name):
        return (self.top / name).read_text(encoding="utf-8")

    def wrong(self, page, link):
        """What is wrong with a link of a page; None if nothing is."""
        target, _, anchor = link.partition("#")
        if target.startswith("/"):
            return "begins with /, which no folder of the repository does"
        path = urllib.parse.unquote(target)
        name = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if name in self.folders:
            return f"no anchors are in the folder {name}" if anchor else None
        if name not in self.files:
            return f"{name} is not in the repository"
        if not anchor:
            return None
        if not name.endswith(".md"):
            lines, most = LINES.match(anchor), self.text(name).count("\n")
            is_there = lines and 1 <= int(lines[1]) <= int(lines[2] or lines[1]) <= most
            return None if is_there else f"{name} has no line {anchor}"
        if name not in self.anchors:
            self.anchors[name] = anchors_of(self.text(name))
        return None if urllib.parse.unquote(anchor) in self.anchors[name] else f"{name} has no heading #{anchor}"


def linked(top):
    """All pages that the site's summary leads to, and the files that they link to."""
    repository, found, open_pages = Repository(top), set(), ["docs/SUMMARY.md"]
    while open_pages:
        page = open_pages.pop()
        found.add(page)
        for _, link in links_of(repository.text(page)):
            path = urllib.parse.unquote(link.partition("#")[0])
            name = os.path.normpath(os.path.join(os.path.dirname(page), path))
            if path and name in repository.files and name not in found:
                found.add(name)
                if name.endswith(".md"):
                    open_pages.append(name)
    return sorted(found)


def check_pages(top, pages=()):
    """Counts of pages, links and links to other hosts, and the dead ones in words."""
    repository = Repository(top)
    pages = list(pages) or sorted(name for name in repository.files if name.endswith(".md"))
    links, elsewhere, dead = 0, 0, []
    for page in pages:
        for number, link in links_of(repository.text(page)):
            links += 1
            if urllib.parse.urlsplit(link).scheme:
                elsewhere += 1
                continue
            wrong = repository.wrong(page, link)
            if wrong:
                dead.append(f"{page}:{number}: {link}: {wrong}")
    summary = "docs/SUMMARY.md"
    if summary in pages:
        listed = {os.path.normpath(os.path.join("docs", link)) for _, link in links_of(repository.text(summary))}
        for page in pages:
            if os.path.dirname(page) == "docs" and page != summary and page not in listed:
                dead.append(f"{summary}: {page} is not listed")
    return len(pages), links, elsewhere, dead


class Page(HTMLParser):
    """What a page of a built site has and where it leads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value)
            elif name in ("href", "src") and value is not None:
                self.links.append((self.getpos()[0], tag, value))


def check_site(folder):
    """The same of the HTML below a folder. What a page loads from another host is dead, too: a site must work without a network."""
    pages = {path.relative_to(folder).as_posix(): Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    links, elsewhere, dead = 0, 0, []
    for name, page in pages.items():
        for number, tag, link in page.links:
            links += 1
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                elsewhere += 1
                if tag != "a" and parts.scheme != "data":
                    dead.append(f"{name}:{number}: {link} is loaded from elsewhere")
                continue
            # mdBook's page for addresses that are not there has the site's root as its base.
            path = urllib.parse.unquote(parts.path)
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            anchor = urllib.parse.unquote(parts.fragment)
            if not (folder / target).exists():
                dead.append(f"{name}:{number}: {link}: {target} is not in the site")
            elif anchor and target in pages and anchor not in pages[target].ids:
                dead.append(f"{name}:{number}: {link}: {target} has nothing with the id {anchor}")
    return len(pages), links, elsewhere, dead


def check_itself():
    """Every kind of dead link is found, and no other."""
    page = """# A page: with `code`, *stars* & more_words
## Twice
## Twice
[good](#a-page-with-code-stars--more_words) [good](#twice-1) [good](b.md#über-b) [good](sub/) [good](sub/c.rs#L2) [good](<sub/c.rs>)
[good](https://host.invalid/#nothing) ![good](sub/c.rs "title") `[code](nothing.md)` [good](#here) <a id="here"></a>
```text
[code](nothing.md)
# not a heading
```
[dead](nothing.md) [dead](B.md) [dead](#not-a-heading) [dead](b.md#twice) [dead](#twice-2)
[dead](sub/c.rs#L4) [dead](/b.md) [dead](../outside.md) [dead](left/out.md) ![dead](sub/picture.png)

[dead]: nowhere.md
"""
    with tempfile.TemporaryDirectory() as folder:
        top = pathlib.Path(folder)
        for name, text in {"a.md": page, "b.md": "# Über B\n", "sub/c.rs": "1\n2\n3\n", "left/out.md": "", ".gitignore": "/left\n",
                           "docs/SUMMARY.md": "# Summary\n[listed](listed.md)\n", "docs/listed.md": "", "docs/lost.md": ""}.items():
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        dead = check_pages(top)[3]
        assert len(dead) == page.count("[dead]") + 1, "\n".join(dead)
        assert dead[-1] == "docs/SUMMARY.md: docs/lost.md is not listed", dead[-1]
        (top / "a.html").write_text('<p id="x"><a href="#x">1</a><a href="b.html#y">2</a><a href="#z">3</a><a href="c.html">4</a>'
                                    '<script src="https://host.invalid/a.js"></script>', encoding="utf-8")
        (top / "b.html").write_text('<p id="y">', encoding="utf-8")
        assert len(check_site(top)[3]) == 3, check_site(top)[3]
    print("links.py: tells dead links from others")


def main():
    arguments = sys.argv[1:]
    top = pathlib.Path(__file__).resolve().parent.parent.parent
    if arguments == ["--itself"]:
        return check_itself()
    if arguments == ["--linked"]:
        return print("\n".join(linked(top)))
    if arguments[:1] == ["--site"] and len(arguments) == 2:
        pages, links, elsewhere, dead = check_site(pathlib.Path(arguments[1]))
    elif arguments and arguments[0].startswith("-"):
        sys.exit(__doc__)
    else:
        pages, links, elsewhere, dead = check_pages(top, [os.path.relpath(name, top) for name in arguments])
    print(*dead, f"links.py: {pages} pages, {links} links, of which {elsewhere} to other hosts are not asked for; {len(dead)} dead", sep="\n")
    sys.exit(1 if dead or not pages else 0)


if __name__ == "__main__":
    main()
