"""See `benchmarks.parity`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.parity.cases import CASES
from benchmarks.parity.compare import compare, markdown
from benchmarks.parity.source import ADDRESS, Clones
from benchmarks.parity.strength import strength, strengths

from benchmarks import parity
from robustdistill.errors import BadInput


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=parity.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default: all")
    parser.add_argument("--run-their-code", action="store_true", help="compare; without it, cases are only listed")
    parser.add_argument("--source", type=Path, default=Path(".work/parity"), help="folder of clones, DIR/OWNER/NAME")
    parser.add_argument("--offline", action="store_true", help="clone nothing")
    arguments = parser.parse_args(given)
    unknown = sorted(set(arguments.names) - set(CASES))
    if unknown:
        parser.error(f"no case {unknown[0]!r}: choose from {', '.join(CASES)}")
    chosen = [CASES[name] for name in arguments.names or CASES]
    if not arguments.run_their_code:
        for case in chosen:
            for source in case.sources:
                print(case.name, ADDRESS.format(repository=source.repository), source.commit, *source.files)
        return 0
    clones, rows, reached, failed = Clones(arguments.source, arguments.offline), [], [], False
    for case in chosen:
        try:
            rows += compare(case, clones)
            reached += strength(case, clones)
        except BadInput as error:
            failed = True
            print(f"{case.name}: {error}", file=sys.stderr)
    print(markdown(rows), strengths(reached), sep="\n", end="")
    return BadInput.exit_code if failed else 0


if __name__ == "__main__":
    sys.exit(main())
