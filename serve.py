"""Serve a source model by HTTP, adapting as images come in: ``python serve.py --help``."""

import sys

from holdfast.programs.serve import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
