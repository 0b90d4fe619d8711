"""Train on images with AL and with BP, and compare: python cvmain.py tinyImageNet vgg -r 3 (--help shows more)."""

import sys

from training.runs.shutdown import loading

if __name__ == "__main__":
    with loading():
        from training.experiment import main
    sys.exit(main("vision"))
