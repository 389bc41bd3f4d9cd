"""The page of hostile inputs has those of the tests, and enough of them."""

import html

from tests.hostile import PAGE, page, refused


def test_the_page_names_tests_that_are_there() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "<code>" in line]
    assert len(lines) >= 150
    known = {row.test for row in refused()}
    named = {html.unescape(line.split("| ")[-1].removesuffix(" |")) for line in lines}
    assert named <= known, "write it anew: python -m tests.hostile"
    assert len(refused()) == page().count("<code>")
