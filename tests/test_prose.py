"""Pages are easy to read: no sentence is too long, and README fits a screen or two."""

from pathlib import Path

import pytest

from tests.commands import PAGES
from tests.conftest import ROOT
from tests.prose import LONGEST, sentences, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    long = [one for one in sentences(page.read_text()) if words(one) > LONGEST]
    assert not long, f"more than {LONGEST} words:\n" + "\n".join(long)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_sentences_are_told_apart() -> None:
    page = (
        "# Title\n\nOne `a.b c` two. Three, e.g. four:\n\n| a table. | b |\n\n- Five\n  six. 7!\n\n"
    )
    page += "    code is. none\n\n```\nnor. This\n```\n![alt. text](x.png) [Link text](y.md) ends\n"
    assert list(sentences(page)) == [
        "One Code two",
        "Three, e.g. four:",
        "Five six",
        "7!",
        "Link text ends",
    ]
    assert words("a – b, c") == 3
