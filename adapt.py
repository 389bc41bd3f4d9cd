"""Adapt a source model to a stream of unlabelled images: ``python adapt.py --help``."""

import sys

from holdfast.programs.adapt import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
