"""Train on documents with AL and with BP, and compare: python nlpmain.py agnews lstm -r 5 (--help shows more)."""

import sys

from training.runs.shutdown import loading

if __name__ == "__main__":
    with loading():
        from training.experiment import main
    sys.exit(main("text"))
