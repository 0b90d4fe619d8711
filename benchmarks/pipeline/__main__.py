"""Run the benchmark: `python -m benchmarks.pipeline --help`."""

import sys

from data.storage.streams import exit_code

from .run import main

if __name__ == "__main__":
    sys.exit(exit_code(main))
