"""Lineward and its peers in one run, on the same two cores, frames, embeddings and banks, in interleaved rounds.

    make peers                                   in an environment of its own; leave the machine alone meanwhile
    python -m benchmarks.peers [--rounds N]      where the peers are installed

Writes results/peers.json and results/peers.md. Each contender is a process of its own, with two threads and otherwise
its own defaults; in a round each has its turn, in another order each time. A ratio is of two times of the same round.
"""

from __future__ import annotations

import argparse

ROUNDS = 15


def main() -> None:
    """Run everything, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the similarity stage (default: %(default)s)")
    rounds = parser.parse_args().rounds
    # Here, since every contender's process imports this module, and none is to carry what it does not use.
    from benchmarks.peers.comparison import compare

    compare(rounds)


if __name__ == "__main__":
    main()
