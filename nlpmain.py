"""Train on documents with AL and with BP, and compare: python nlpmain.py agnews lstm -r 5 (--help shows more)."""

import sys

from training.experiment import main

if __name__ == "__main__":
    sys.exit(main("text"))
