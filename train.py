"""Train a source model on labelled images: ``python train.py --help``."""

import sys

from holdfast.programs.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
