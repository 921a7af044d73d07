"""`python -m tidegate` and the `tidegate` command."""

import sys

from tidegate.cli import main as run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
