"""Bar charts as SVG, one for each group of workloads.

Rates of different workloads have no common unit, so each workload has a scale of its own: its
longest bar is the fastest filesystem that keeps what it is given, and syncs where that matters;
others are pale and end there. The bare directory is a number beside the title, since it would make
all bars short.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from peers import Kmsfs, Peer
from report import median_rate, short
from runner import Outcome
from workloads import Workload

_WIDTH, _LABELS, _VALUES = 760, 130, 150
_BAR, _GAP, _TITLE, _TOP = 14, 3, 24, 48
_SUBJECT, _FLOOR = "#c2410c", "#cbd5e1"
_OTHERS = ["#1d4ed8", "#0f766e", "#7c3aed", "#a16207", "#be185d", "#475569"]


def write(outcome: Outcome, directory: Path) -> list[Path]:
    """Writes a file for each group and latency into `directory`, and returns their names."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for latency in outcome.options.latencies:
        for group in dict.fromkeys(workload.group for workload in outcome.options.workloads):
            name = directory / f"{group.replace(' ', '-')}-{latency}.svg"
            drawn = _chart(outcome, group, latency)
            if drawn:
                name.write_text(drawn, encoding="utf-8")
                written.append(name)
    return written


def _chart(outcome: Outcome, group: str, latency: str) -> str:
    """One chart; empty if nothing of this group was measured."""
    workloads = [one for one in outcome.options.workloads if one.group == group]
    parts, top = [], _TOP
    for workload in workloads:
        drawn, height = _workload(outcome, workload, latency, top)
        parts += drawn
        top += height
    if not parts:
        return ""
    held = ", idle processors wake at once" if latency == "hold" else ""
    when = outcome.facts["date"].split()[0]
    title = f"{group.capitalize()}{held}: median rates, longer is faster"
    below = f"{when}, {outcome.facts['processor']}, Linux {outcome.facts['kernel']}"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top + 10}"'
        f' viewBox="0 0 {_WIDTH} {top + 10}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{top + 10}" fill="white"/>',
        f'<text x="12" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="12" y="37" fill="#64748b">{escape(below)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _workload(
    outcome: Outcome, workload: Workload, latency: str, top: int
) -> tuple[list[str], int]:
    """The bars of one workload, and how high they are together."""
    rates = {peer.name: median_rate(outcome, workload, latency, peer) for peer in outcome.peers}
    bare = rates.pop("bare", None)
    bars = [(peer, rates[peer.name]) for peer in outcome.peers if rates.get(peer.name)]
    if not bars:
        return [], 0
    title = f"{workload.name}: {workload.does} ({workload.unit}/s)"
    title += f"; bare directory {short(bare)}" if bare else ""
    parts = [f'<text x="12" y="{top + 15}" font-weight="bold">{escape(title)}</text>']
    measures = [rate or 0 for peer, rate in bars if _counts(outcome, workload, peer)]
    longest = max(measures or [rate or 0 for _, rate in bars])
    at = top + _TITLE
    for peer, rate in bars:
        width = min(1.0, (rate or 0) / longest) * (_WIDTH - _LABELS - _VALUES)
        syncs = outcome.counts(workload, peer) or not peer.keeps_contents
        mark = "" if syncs else " (does not sync)"
        value = f"{'→ ' if (rate or 0) > longest else ''}{short(rate or 0)}{mark}"
        colour, middle = _colour(outcome, peer), at + _BAR - 3
        shade = 1 if _counts(outcome, workload, peer) else 0.4
        parts += [
            f'<text x="{_LABELS - 8}" y="{middle}" text-anchor="end">{escape(peer.name)}</text>',
            f'<rect x="{_LABELS}" y="{at}" width="{width:.1f}" height="{_BAR}" fill="{colour}"'
            f' fill-opacity="{shade}"/>',
            f'<text x="{_LABELS + width + 6:.1f}" y="{middle}">{value}</text>',
        ]
        at += _BAR + _GAP
    return parts, at - top + 8


def _counts(outcome: Outcome, workload: Workload, peer: Peer) -> bool:
    """True for those that the others can be measured by."""
    return peer.keeps_contents and outcome.counts(workload, peer)


def _colour(outcome: Outcome, peer: Peer) -> str:
    if isinstance(peer, Kmsfs):
        return _SUBJECT
    if not peer.encrypts:
        return _FLOOR
    others = [one.name for one in outcome.peers if one.encrypts and not isinstance(one, Kmsfs)]
    return _OTHERS[others.index(peer.name) % len(_OTHERS)]
