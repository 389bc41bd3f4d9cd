"""What ``serve.py`` does: answer to images that come in by HTTP, adapting as they come."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from holdfast.serving.config import GROUPS, ServeConfig, configured
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.saying import say

USAGE = (
    "usage: holdfast serve source=DIR_OR_CKPT [config.yaml ...] [key=value ...]\n\n"
    "Answer to images by HTTP, adapting as they come in: POST /predict, and / for the status page."
)
#: Modules of the extra ``serve``.
_NEEDED = ("fastapi", "uvicorn", "multipart", "prometheus_client")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            raise InputError(f"serving needs {', '.join(missing)}: pip install 'holdfast[serve]'")
        from holdfast.serving.run import serve

        say(f"stopped; a restart goes on in {serve(*configured(argv))}")

    def configure(words: Sequence[str]) -> ServeConfig:
        return configured(words)[0]

    return entry.run(run, ServeConfig, GROUPS, USAGE, argv, configure=configure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
