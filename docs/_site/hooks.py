"""What MkDocs is told beside mkdocs.yml: pages made from the code, and links that leave docs/."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from docs._site import flow, reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_LOG = logging.getLogger("mkdocs.hooks.holdfast")
#: Files outside of docs/ that are pages of the site.
_PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "about.md",
}
#: What the theme leaves without a name that is read out.
_NAMELESS = re.compile(r'<div class="md-search"|<input class="md-toggle" data-md-toggle="search"')
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the code."""
    made = reference.pages()
    for name in _PAGES:
        made[_PAGES[name]] = _moved((ROOT / name).read_text(), ROOT, DOCS)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for name in ("iframe-worker.js", "site.css", "site.js"):
        asset = (DOCS / "_site" / name).read_text()
        files.append(File.generated(config, f"assets/{name}", content=asset))
    for path in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{path.name}.txt", content=path.read_text()))
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"{name}.txt", content=path.read_text()))
    return files


def on_post_page(output: str, **_: Any) -> str:
    """A page of the theme's, whose search gets a name."""
    return _NAMELESS.sub(r'\g<0> aria-label="Search"', output)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same of the page that tells that there is none."""
    return on_post_page(output_content)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to what the site has of it."""
    markdown = flow.drawn(markdown)
    if page.file.generated_by is not None:
        return markdown
    folder = (DOCS / page.file.src_uri).parent
    return _moved(markdown, folder, folder)


def _moved(markdown: str, written: Path, shown: Path) -> str:
    """The page with its links as they are seen from another folder.

    Args:
        markdown: the page.
        written: folder that its links start from.
        shown: folder of docs/ that they are to start from.
    """

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or "://" in path:
            return found.group()
        whole = Path(os.path.normpath(written / path))
        if not whole.is_relative_to(ROOT):
            _LOG.warning("a link leaves the project: %s", target)
            return text
        place = _place(whole)
        if place is None:
            return f"{text} (`{whole.relative_to(ROOT).as_posix()}`)"
        return f"[{text}]({os.path.relpath(DOCS / place, shown)}{mark}{anchor})"

    return _LINK.sub(link, markdown)


def _place(path: Path) -> str | None:
    """Where the site has a file of the project; None: nowhere."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    if name in _PAGES:
        return _PAGES[name]
    if name == "examples":
        return "examples.md"
    if path.suffix in (".py", ".yaml") and name.split("/")[0] in ("examples", "configs"):
        return f"{name}.txt"
    return None
