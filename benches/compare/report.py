"""The outcome as tables, for a terminal and for a document."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from measure import Sample
from peers import Kmsfs, Peer
from runner import Outcome
from workloads import Workload

SUBJECT = "kmsfs"
_GIB_IN_MIB = 1024
_LATENCIES = {
    "as-is": "idle processors sleep as this machine has them",
    "hold": "/dev/cpu_dma_latency held at 0: idle processors wake at once",
}


@dataclass
class Table:
    """A title, a header, and rows of cells; the first column is text, the others are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(outcome: Outcome) -> list[Table]:
    """All tables of a report: rates first, then what they cost, by latency."""
    found = []
    for latency in outcome.options.latencies:
        found.append(_rates(outcome, latency))
        found.extend(_costs(outcome, latency))
    return [table for table in found if table.rows]


def terminal(outcome: Outcome) -> str:
    """The report as plain text."""
    parts = [_lines(outcome)]
    parts += [f"{table.title}\n\n{_plain(table)}" for table in tables(outcome)]
    return "\n\n".join(parts) + "\n"


def markdown(outcome: Outcome) -> str:
    """The report for a document."""
    parts = ["\n".join(f"- {line}" for line in _lines(outcome).splitlines())]
    parts += [f"### {table.title}\n\n{_marked(table)}" for table in tables(outcome)]
    return "\n\n".join(parts) + "\n"


def short(value: float) -> str:
    """A number in three digits: 1234567 is 1.23M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return _digits(value / limit) + unit
    return _digits(value)


def median_rate(outcome: Outcome, workload: Workload, latency: str, peer: Peer) -> float | None:
    """The median over the rounds, in operations per second."""
    rates = [one.rate for one in outcome.timed(workload.name, latency, peer.name).values()]
    return statistics.median(rates) if rates else None


def _rates(outcome: Outcome, latency: str) -> Table:
    peers = outcome.peers
    with_ratios = any(peer.name == SUBJECT for peer in peers) and len(peers) > 1
    header = ["workload", *(peer.name for peer in peers)]
    if with_ratios:
        header += [f"{SUBJECT} / best other", f"{SUBJECT} / bare"]
    rows = []
    for workload in outcome.options.workloads:
        cells = [_rate(outcome, workload, latency, peer) for peer in peers]
        if not any(cells):
            continue
        if with_ratios:
            cells += [_to_best(outcome, workload, latency), _to_bare(outcome, workload, latency)]
        rows.append([f"{workload.name} ({workload.unit}/s)", *(cell or "-" for cell in cells)])
    several = outcome.options.rounds > 1
    what = f"median (min–max) of {outcome.options.rounds} rounds" if several else "of one round"
    title = f"Rates, {what}; {_LATENCIES[latency]}"
    return Table(title, header, rows)


def _rate(outcome: Outcome, workload: Workload, latency: str, peer: Peer) -> str:
    rates = [one.rate for one in outcome.timed(workload.name, latency, peer.name).values()]
    mark = "" if outcome.counts(workload, peer) else "*"
    return _spread(rates, short) + mark if rates else ""


def _to_best(outcome: Outcome, workload: Workload, latency: str) -> str:
    """This project beside the fastest other filesystem that encrypts, round by round."""
    others = [peer for peer in outcome.peers if peer.encrypts and not isinstance(peer, Kmsfs)]
    others = [peer for peer in others if outcome.counts(workload, peer)]
    medians = {peer.name: median_rate(outcome, workload, latency, peer) or 0 for peer in others}
    best = max(medians, key=lambda name: medians[name], default="")
    rounds = [outcome.timed(workload.name, latency, peer.name) for peer in others]
    ours = outcome.timed(workload.name, latency, SUBJECT)
    ratios = []
    for number, sample in ours.items():
        rates = [of[number].rate for of in rounds if number in of]
        if rates:
            ratios.append(sample.rate / max(rates))
    return f"{_spread(ratios, _digits)} {best}" if ratios else ""


def _to_bare(outcome: Outcome, workload: Workload, latency: str) -> str:
    bare = outcome.timed(workload.name, latency, "bare")
    ours = outcome.timed(workload.name, latency, SUBJECT)
    ratios = [ours[number].rate / bare[number].rate for number in ours if number in bare]
    return _spread(ratios, _digits) if ratios else ""


def _costs(outcome: Outcome, latency: str) -> list[Table]:
    each = "per operation, or per MiB"

    def cpu(workload: Workload, sample: Sample) -> float:
        one = sample.daemon_cpu / sample.operations
        return one * (_GIB_IN_MIB if workload.per_gib else 1e6)

    def switches(_workload: Workload, sample: Sample) -> float:
        return sample.switches / sample.operations

    def memory(_workload: Workload, sample: Sample) -> float:
        return sample.memory / 2**20

    def requests(_workload: Workload, sample: Sample) -> float | None:
        return None if sample.requests is None else sample.requests / sample.operations

    def syncs(_workload: Workload, sample: Sample) -> float | None:
        return None if sample.sync_requests is None else sample.sync_requests / sample.operations

    def units(workload: Workload) -> str:
        return "s/GiB" if workload.per_gib else "µs"

    return [
        _cost(outcome, latency, "CPU of the daemon per operation, or per GiB", cpu, units),
        _cost(outcome, latency, f"Requests of the kernel {each}", requests, counting=True),
        _cost(outcome, latency, f"Requests to sync {each}", syncs, counting=True),
        _cost(outcome, latency, f"Voluntary context switches of the daemon {each}", switches),
        _cost(outcome, latency, "Resident memory of the daemon after the run, MiB", memory),
    ]


def _cost(
    outcome: Outcome,
    latency: str,
    title: str,
    value: Callable[[Workload, Sample], float | None],
    units: Callable[[Workload], str] | None = None,
    counting: bool = False,
) -> Table:
    """One cost of each daemon, from the round that counted requests or from the timed ones."""
    peers = [peer for peer in outcome.peers if peer.name != "bare"]
    rows = []
    for workload in outcome.options.workloads:
        cells = []
        for peer in peers:
            samples = list(outcome.timed(workload.name, latency, peer.name).values())
            if counting:
                one = outcome.counted(workload.name, latency, peer.name)
                samples = [one] if one else []
            values = [value(workload, sample) for sample in samples]
            known = [value for value in values if value is not None]
            cells.append(short(statistics.median(known)) if known else "-")
        if counting and title.startswith("Requests to sync") and not workload.syncs:
            continue
        if any(cell != "-" for cell in cells):
            unit = f" ({units(workload)})" if units else ""
            rows.append([f"{workload.name}{unit}", *cells])
    # The two ways to have the latency cost about the same requests: said once.
    if counting and latency != outcome.options.latencies[0]:
        rows = []
    held = "" if len(outcome.options.latencies) == 1 else f" ({latency})"
    return Table(f"{title}{held}", ["workload", *(peer.name for peer in peers)], rows)


def _lines(outcome: Outcome) -> str:
    """What stands above the tables."""
    lines = [f"{key}: {text}" for key, text in outcome.facts.items()]
    lines.append(f"scale: {outcome.options.scale}")
    for peer in outcome.peers:
        version = f" ({outcome.versions[peer.name]})" if outcome.versions[peer.name] else ""
        lines.append(f"{peer.name}: {peer.does}{version}{_syncs(outcome, peer)}")
    if any(peer.syncs is not True for peer in outcome.peers):
        lines.append("*: this filesystem did not sync all of it, so nothing is compared with it")
    return "\n".join(lines + [f"note: {note}" for note in outcome.notes])


def _syncs(outcome: Outcome, peer: Peer) -> str:
    seen = outcome.proofs.get(peer.name)
    return "" if seen is None else f"; 20 syncs of a program were {seen} of the daemon"


def _spread(values: list[float], text: Callable[[float], str]) -> str:
    if not values:
        return ""
    middle = text(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({text(min(values))}–{text(max(values))})"


def _digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _plain(table: Table) -> str:
    columns = list(zip(table.header, *table.rows))
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = []
    for row in [table.header, *table.rows]:
        first, *others = zip(row, widths)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _marked(table: Table) -> str:
    rule = ["---", *("---:" for _ in table.header[1:])]
    rows = [table.header, rule, *table.rows]
    escaped = [[cell.replace("*", r"\*") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in escaped)
