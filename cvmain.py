"""Train on images with AL and with BP, and compare: python cvmain.py tinyImageNet vgg -r 3 (--help shows more)."""

import sys

from training.experiment import main

if __name__ == "__main__":
    sys.exit(main("vision"))
