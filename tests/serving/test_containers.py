"""The files of containers start the service with words that it takes."""

import json
import re
from typing import Any

import yaml

from tests.commands import check_words
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def words_of(instruction: str) -> list[str]:
    """Words of an instruction in the form of a list; the last one counts."""
    found = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, flags=re.MULTILINE)
    words: list[str] = json.loads(found[-1])
    return words


def test_the_image_starts_what_there_is() -> None:
    start = words_of("ENTRYPOINT")
    assert start[:2] == ["holdfast", "serve"]
    check_words("serve.py", [*start[2:], *words_of("CMD")])
    assert "[serve,dicom]" in DOCKERFILE
    assert not re.search(r"HOLDFAST_TOKEN=", DOCKERFILE)


def test_compose_starts_it_with_words_that_it_takes() -> None:
    service: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][
        "holdfast"
    ]
    check_words("serve.py", [*words_of("ENTRYPOINT")[2:], *service["command"]])
    assert service["environment"]["HOLDFAST_TOKEN"].startswith("${HOLDFAST_TOKEN:?")
    assert service["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
