"""Coverage-guided fuzzing of the parsers by atheris.

    python tests/faults/fuzz.py                         all parsers, for a minute
    python tests/faults/fuzz.py idx tar --seconds 600   two of them, for longer
    python tests/faults/fuzz.py idx --input finding-idx one input again

A parser ends well with a value, or with an error of one sentence. Anything else ends the run with an exit code other
than 0, a traceback and the input in `finding-PARSER`: mend the parser, and add the input to test_fuzzed.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

LIMITS = ("-timeout=60", "-rss_limit_mb=6000", "-max_len=20000", "-print_final_stats=1")
NONE = "### NO ATHERIS: it has no wheel for this system, so the parsers are NOT FUZZED in this run."


def main() -> int:
    """Fuzz until the time is over or something is found."""
    try:
        import atheris
    except ModuleNotFoundError:
        print("#" * len(NONE), NONE, "#" * len(NONE), sep="\n", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder, atheris.instrument_imports(include=["randfeat"]):
        import battery
        from parsers import PARSERS, parsed

        args = _arguments([*PARSERS])
        place = battery.Place(Path(folder, "place"))
        place.root.mkdir()
        corpus = Path(folder, "corpus")
        corpus.mkdir()

        def one(content: bytes) -> None:
            """Give an input to the parser that its first byte says."""
            name = args.parsers[content[0] % len(args.parsers)] if content else args.parsers[0]
            try:
                parsed(name, place, content[1:])
            except BaseException:
                Path(f"finding-{name}").write_bytes(content[1:])
                print(f"finding of {name}: {content[1:]!r}", file=sys.stderr)
                raise

        for number, name in enumerate(args.parsers):
            for content in [args.input.read_bytes()] if args.input else PARSERS[name].seeds(place):
                one(bytes([number]) + content)  # which also imports, and so instruments, what is imported late
                Path(corpus, f"{len([*corpus.iterdir()]):03}").write_bytes(bytes([number]) + content)
        if not args.input:
            atheris.Setup(
                [sys.argv[0], *LIMITS, f"-max_total_time={args.seconds}", f"-seed={args.seed}", str(corpus)], one
            )
            atheris.Fuzz()
    return 0


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[*names, []], metavar="PARSER", help=", ".join(names))
    parser.add_argument("--seconds", type=int, default=60, help="60")
    parser.add_argument("--seed", type=int, default=1, help="1; 0 takes another one each time")
    parser.add_argument("--input", type=Path, metavar="FILE", help="bytes for the parser that is named")
    args = parser.parse_args()
    args.parsers = args.parsers or names
    return args


if __name__ == "__main__":
    sys.exit(main())
