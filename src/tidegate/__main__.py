"""`python -m tidegate` and the `tidegate` command."""

import gc
import sys

# Nearly everything a start makes stays, and looking through it for garbage takes a twentieth of the
# time. Not switched off, nor rarer than this: what an application drops while it is imported would
# stay (with 50,000 a worker had 0.1 MB more and was not quicker).
RARELY = 10_000

INTERRUPTED = 130  # what a shell reports for a program that Ctrl+C has ended: 128 + SIGINT


def main() -> None:
    """Run the command and end the process. Ctrl+C before the server takes signals is no failure:
    where it happened to strike, in our imports or in the application's, helps nobody."""
    usual = gc.get_threshold()
    gc.set_threshold(RARELY, *usual[1:])

    def collect_as_usual() -> None:
        if gc.get_threshold()[0] == RARELY:  # else the application has set it: its choice stays
            gc.set_threshold(*usual)

    try:
        from tidegate.cli import main as run

        sys.exit(run(on_started=collect_as_usual))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        collect_as_usual()


if __name__ == "__main__":
    main()
