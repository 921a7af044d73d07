"""What the fuzz targets share: damage done at random, or inputs steered by coverage (atheris).

A target is a `check` of one input and where to cut it, a corpus to begin with, and the room of the
source whose branches are watched.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST = 4096


@dataclass(frozen=True)
class Target:
    """`fragments` are put into damaged inputs; `room` is the package that is watched."""

    name: str
    room: str
    check: Callable[[bytes, Iterable[int]], None]
    corpus: Callable[[], list[bytes]]
    fragments: Sequence[bytes]


def damage(raw: bytes, fragments: Sequence[bytes], chance: random.Random) -> bytes:
    """A few small accidents."""
    data = bytearray(raw)
    for _ in range(chance.randrange(5)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                data[place:place] = chance.choice(fragments)
            case 2:
                del data[place : place + chance.randrange(1, 9)]
            case 3:
                data += data[place : place + 100]
            case _:
                data[place:place] = bytes(data[place : place + 30])
    return bytes(data[:LONGEST])


def inputs(target: Target, seed: int) -> Iterator[tuple[bytes, list[int]]]:
    """Without end: rows of the corpus, damaged and put behind one another, and where to cut."""
    chance, rows = random.Random(seed), target.corpus()
    while True:
        picked = chance.sample(rows, chance.randrange(1, 4))
        cuts = [chance.randrange(LONGEST) for _ in range(chance.randrange(1, 8))]
        yield b"".join(damage(row, target.fragments, chance) for row in picked), cuts


def at_random(target: Target, seconds: float, seed: int) -> int:
    """Try damaged inputs for some seconds; how many there were."""
    end = time.monotonic() + seconds
    for tried, (raw, cuts) in enumerate(inputs(target, seed)):  # noqa: B007
        if time.monotonic() > end:
            break
        try:
            target.check(raw, cuts)
        except BaseException:
            print(f"to repeat:\n  check({raw!r}, {cuts})")
            raise
    return tried


def steered(target: Target, seconds: int, folder: Path) -> None:
    """By coverage, with atheris; ends the process when the time is over."""
    import atheris

    def one_input(data: bytes) -> None:
        # The first bytes say where to cut; the rest is the stream.
        cuts = [int.from_bytes(data[at : at + 2], "big") for at in (0, 2, 4)]
        target.check(data[6 : 6 + LONGEST], cuts)

    for module in [name for name in sys.modules if name.startswith(target.room)]:
        for thing in vars(sys.modules[module]).values():
            if callable(thing) and getattr(thing, "__module__", "") == module:
                instrument(atheris, thing)
    folder.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(target.corpus()):
        (folder / f"row-{number}").write_bytes(b"\0\x07\0\x13\0\x2b" + raw)
    (folder / "found").mkdir(exist_ok=True)
    arguments = [
        f"-artifact_prefix={folder}/found/",
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(folder)], one_input)
    atheris.Fuzz()


def instrument(atheris: object, thing: object) -> None:
    """Make a function, or a class's functions, tell atheris which branches they take."""
    members = vars(thing).items() if isinstance(thing, type) else [("", thing)]
    for _, member in members:
        if hasattr(member, "__code__"):
            atheris.instrument_func(member)  # type: ignore[attr-defined]


def main(target: Target) -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    try:
        import atheris
    except ImportError:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
        print(f"atheris is not installed: damaging the corpus at random, seed {seed}")
        print(f"{at_random(target, seconds, seed)} inputs in {seconds} s, nothing found")
    else:
        del atheris
        steered(target, seconds, Path(f"build/fuzz-{target.name}"))
