"""Compares kmsfs with other filesystems that encrypt, with the least that FUSE costs, and with the
bare directory: python3 benches/compare --help."""

from __future__ import annotations

import sys

# The work tree stays clean.
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import argparse  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402

import charts  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import runner  # noqa: E402
from peers import Kmsfs, Peer, every_peer  # noqa: E402
from workloads import SCALES, Workload, every_workload  # noqa: E402

_ABOUT = """\
Runs the same workloads on several filesystems, in rounds, one after the other, and prints medians.
Needs root: it mounts and drops caches. Build first:
cargo build --release && cargo build --release --example floor.
What is not installed is left out. docs/PERFORMANCE.md says how to read the numbers."""


# What a shell says of a program that Ctrl-C has ended.
_STOPPED = 130


def main() -> int:
    """Runs, and returns the exit code."""
    arguments = _parser().parse_args()
    if not machine.has_root():
        print("compare: needs root: it mounts filesystems and drops caches", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        outcome = runner.run(_options(arguments))
    except KeyboardInterrupt:
        return _STOPPED
    if not outcome.samples:
        runner.tell("nothing was measured")
        return _STOPPED if outcome.stopped else 1
    print(report.terminal(outcome), end="")
    if arguments.json:
        text = json.dumps(outcome.as_json(), indent=1, ensure_ascii=False)
        arguments.json.write_text(f"{text}\n", encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(outcome), encoding="utf-8")
    if arguments.charts:
        charts.write(outcome, arguments.charts)
    return _STOPPED if outcome.stopped else 0


def _parser() -> argparse.ArgumentParser:
    peers = "\n".join(f"  {peer.name:18}{peer.does}" for peer in every_peer())
    workloads = "\n".join(f"  {one.name:18}{one.does}" for one in every_workload())
    parser = argparse.ArgumentParser(
        prog="benches/compare",
        description=_ABOUT,
        epilog=f"filesystems:\n{peers}\n\nworkloads:\n{workloads}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", metavar="NAME,...", help="only these filesystems")
    parser.add_argument("--workloads", metavar="NAME,...", help="only these workloads")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="timed rounds (3)")
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much is done (small)")
    parser.add_argument(
        "--latency",
        choices=("hold", "as-is", "both"),
        default="both",
        help=f"whether {machine.LATENCY} is held at 0 (both)",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where to work: on the filesystem below (/var/tmp)",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another kmsfs binary, as a filesystem of its own",
    )
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="for one run (600)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="write bar charts (SVG)")
    return parser


def _options(arguments: argparse.Namespace) -> runner.Options:
    if arguments.rounds < 1:
        raise SystemExit("compare: --rounds takes 1 or more")
    if not arguments.directory.is_dir():
        raise SystemExit(f"compare: {arguments.directory} is not a directory")
    latencies = ["as-is", "hold"] if arguments.latency == "both" else [arguments.latency]
    return runner.Options(
        directory=arguments.directory.resolve(),
        scale=arguments.scale,
        rounds=arguments.rounds,
        latencies=latencies,
        peers=_peers(arguments),
        workloads=_workloads(arguments),
        seconds=arguments.timeout,
    )


def _peers(arguments: argparse.Namespace) -> list[Peer]:
    peers = every_peer()
    for word in arguments.also:
        name, _, path = word.partition("=")
        if not path or any(peer.name == name for peer in peers):
            raise SystemExit(f"compare: --also takes NAME=FILE, with a new name: {word}")
        peers.append(Kmsfs(name, path, binary=Path(path).resolve()))
    wanted = _names(arguments.peers, [peer.name for peer in peers])
    return [peer for peer in peers if peer.name in wanted]


def _workloads(arguments: argparse.Namespace) -> list[Workload]:
    workloads = every_workload()
    if arguments.workloads is None:
        return [workload for workload in workloads if not workload.by_name]
    wanted = _names(arguments.workloads, [workload.name for workload in workloads])
    return [workload for workload in workloads if workload.name in wanted]


def _names(given: str | None, known: list[str]) -> list[str]:
    """The names of a list on the command line, each of which is known; all if there is no list."""
    names = known if given is None else given.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"compare: there is no {name!r}, only {', '.join(known)}")
    return names


def _stop(_number: int, _frame: object) -> None:
    """Ends the run; what takes it away is not interrupted again."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    runner.tell("stopping: everything is unmounted and removed")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
