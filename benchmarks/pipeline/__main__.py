"""Run the benchmark: `python -m benchmarks.pipeline --help`."""

from .run import main

if __name__ == "__main__":
    main()
