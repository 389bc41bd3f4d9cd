"""Measure methods and guards on shifted streams: ``python benchmark.py --help``."""

import sys

from holdfast.programs.benchmark import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
