"""Train on images with AL and with BP, and compare: python cvmain.py tinyImageNet vgg -r 3 (--help shows more)."""

import sys
from pathlib import Path

# Python leaves the script's folder out with -P, -I and PYTHONSAFEPATH.
if (HERE := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, HERE)

from data.storage.streams import exit_code
from training.config import command_or_exit
from training.runs.shutdown import end_process, loading


def main() -> int:
    """Run the command line and return the exit code."""
    with loading():
        command = command_or_exit("vision")  # without torch, so that help and mistakes are answered at once
        from training.experiment import execute
    return execute(command)


if __name__ == "__main__":
    end_process(exit_code(main))
