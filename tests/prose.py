"""Sentences of a Markdown page, as a reader counts them."""

import re
from collections.abc import Iterator

#: Words that a sentence may have: what is longer is read twice.
LONGEST = 25

_BLOCK = re.compile(r"^\s*(?:```.*?^\s*```|<!--.*?-->|^ {4,}\S[^\n]*$)", re.MULTILINE | re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]+`")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
#: A full stop ends a sentence before a space and what may begin one; abbreviations don't.
_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bal)(?<!\bvs)[.!?]['\")*_]*\s+(?=[^a-z])")
_NUMBER = re.compile(r"(?<![\w.])[−-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[−-]?\d+)?(?![\w])")


def sentences(page: str) -> Iterator[str]:
    """Sentences of paragraphs, list items and quotations; no tables, headings, code or pictures."""
    for paragraph in _paragraphs(page):
        text = _IMAGE.sub("", paragraph)
        text = _LINK.sub(r"\1", _CODE.sub("Code", text))
        yield from (part.strip() for part in _END.split(" ".join(text.split())) if part.strip())


def words(sentence: str) -> int:
    """How many words it has; a dash is none, and code within it is one."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def numbers(sentence: str) -> list[str]:
    """Its figures, without those within names and code."""
    return _NUMBER.findall(sentence)


def _paragraphs(page: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*_BLOCK.sub("\n", page).splitlines(), ""]:
        stands = line.strip()
        if not stands or stands.startswith(("|", "#", "---", "```", ":::", "!!!")):
            if lines:
                yield " ".join(lines)
            lines = []
        elif _ITEM.match(line):
            if lines:
                yield " ".join(lines)
            lines = [_ITEM.sub("", line)]
        else:
            lines.append(stands)
