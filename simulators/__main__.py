"""`python -m simulators fleet`: what can be run of the simulators, beside the demo."""

import sys
from collections.abc import Sequence

USAGE = """\
usage: python -m simulators fleet [--devices N] [OPTION ...]

  fleet    many devices, with the real agent's logic, against one broker: --help says more
"""


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["fleet"]:
        from simulators.fleet.command import main as fleet

        return fleet(arguments[1:])
    asked = arguments[:1] in (["-h"], ["--help"])
    (sys.stdout if asked else sys.stderr).write(USAGE)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
