"""``python -m dpa2md`` is the command ``dpa2md``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
