"""`carrel-hub` and `python -m carrel_hub`."""

import sys

from carrel_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
