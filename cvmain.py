"""Train on images with AL and with BP, and compare: python cvmain.py tinyImageNet vgg -r 3 (--help shows more)."""

import sys

from training.config import command_or_exit
from training.runs.shutdown import loading

if __name__ == "__main__":
    with loading():
        command = command_or_exit("vision")  # without torch, so that help and mistakes are answered at once
        from training.experiment import execute
    sys.exit(execute(command))
