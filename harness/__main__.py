"""`python -m harness COMMAND` is `forced-choice COMMAND`."""

import sys

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
