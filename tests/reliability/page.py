"""``docs/reliability.md``, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedpeft.files import write_whole

from .faults import FAULTS
from .operation import TIMEOUT
from .record import OURS, REPOSITORY, SOAK, STOCK, TRANSPORT, read

PAGE = REPOSITORY / "docs" / "reliability.md"

FACTS = {
    "node-training": "the round stalls for 64 s; a node started again within about 60 s is refused and ends",
    "serverapp": "the run has failed after 55 s; nothing resumes it",
    "superlink-10": "in `process` isolation with a database the run completes",
    "superlink-90": "failed (80 s down): a task's heartbeat is missed after 60 s",
    "database": "HTTP 500 on pull (9 s); all SuperNodes offline for ever, processes alive",
    "proxy-500": "one HTTP 500 stops a SuperNode for ever, its process stays alive",
}
"""What an earlier measurement of the same version says, for rows that were not measured here."""

_INAPPLICABLE = {
    "node-masked": "no such stage: its secure aggregation does not run with the Message API",
    "node-survivors": "no such stage",
    "node-unmask": "no such stage",
    "supervisor": "nobody supervises it",
    "stranger": "not measured: node authentication is the same program on both sides",
    "revoked": "no certificates of clients: an operator unregisters a node by hand",
    "expired": "no certificates of clients",
}
_TITLES = {fault.name: fault.title for fault in FAULTS}
_COSTS = {
    "client_cpu_seconds_per_round": "processor time of the client, s",
    "seconds_per_round": "seconds per round, median",
    "requests_per_client_round": "requests",
    "uplink_bytes": "bytes up",
    "downlink_bytes": "bytes down",
    "rounds": "rounds measured",
}
_HEAD = """\
# What dies, and what comes of it

Each row was done to a federation of real processes on loopback: `fedpeft server up` (a SuperLink with TLS, node
authentication and SQLite; our ServerApp; secure aggregation), six embedded nodes in rounds of five, all behind a relay.
A round is *lost* when it was committed and is not there any more, or is another one. A sum is *wrong* when no set of as
many clients as the round reports leads, from their own payloads in the clear, bit for bit to the adapter that was
published (`tests/reliability/keeper.py`). *Back after* is the time from the end of the fault to the next round that
is finished and not burnt; one round timeout is {timeout:.0f} s.

Beside it stands what the same fault did to stock Flower: its SuperLink with the same options, its SuperNodes behind the
same relay, FedAvg over three clients that add one. Cells marked *earlier* are from a measurement of the same version
that was not repeated here.

`make reliability` measures it again, `make reliability-stock` what stock Flower does and what a round costs, `make soak` the
soak; each writes this page. `tests/reliability/results/` holds the lines that it is made of.

"""


def page() -> str:
    """Return the page."""
    ours = {row["fault"]: row for row in read(OURS)}
    stock = {row["fault"]: row for row in read(STOCK)}
    lines = [
        "| fault | fedpeft | back after | rounds: played, burnt, lost | fewest of 5 in a sum | wrong sums | stock Flower |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        cells = [fault.title, *_ours(ours.get(fault.name)), _stock(fault.name, stock.get(fault.name))]
        lines.append("| " + " | ".join(cells) + " |")
    text = _HEAD.format(timeout=TIMEOUT) + "\n".join(lines) + "\n\n" + _measured(ours.values(), stock.values())
    return text + _soak(read(SOAK)) + _transport(read(TRANSPORT))


def write_page() -> None:
    """Write it."""
    write_whole(PAGE, page())


def _ours(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["not measured", "", "", "", ""]
    late = "" if row["within"] else " (late)"
    rounds = f"{row['rounds']}, {row['burnt']}, {row['lost_rounds']}"
    return [
        _cell(row["note"]),
        f"{row['recovery_s']:.1f} s{late}",
        rounds,
        str(row.get("fewest", "")),
        str(row["wrong_sums"]),
    ]


def _stock(name: str, row: dict[str, Any] | None) -> str:
    if row is not None:
        seconds = row["recovery_s"]
        return _cell(row["note"]) + (f" (two rounds in {seconds:.1f} s)" if seconds is not None else "")
    if name in FACTS:
        return f"*earlier*: {FACTS[name]}"
    return _INAPPLICABLE.get(name, "not measured")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _measured(ours: Iterable[dict[str, Any]], stock: Iterable[dict[str, Any]]) -> str:
    """Say of every row at which commit it was measured, and when."""
    lines = []
    for whose, rows in (("fedpeft", list(ours)), ("stock Flower", list(stock))):
        for commit in dict.fromkeys(row["commit"] for row in rows):
            mine = [row for row in rows if row["commit"] == commit]
            when = max(row["date"] for row in mine)
            lines.append(f"- {whose} at {commit}, {when} UTC: {'; '.join(_TITLES[row['fault']] for row in mine)}")
        machines = dict.fromkeys(f"{row['machine']}, flwr {row['flwr']}" for row in rows)
        lines += [f"  (on {machine}; the cores were shared)" for machine in machines]
    return "Measured:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _soak(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    row = rows[-1]
    kills = ", ".join(f"{count} of {kind}" for kind, count in row["killed"].items())
    table = "".join(
        f"| {name} | {low:.0f} | {high:.0f} | {last:.0f} |\n" for name, (low, high, last) in row["memory_mib"].items()
    )
    return f"""
## Soak

`make soak` runs {row["rounds"]} rounds and kills something every few seconds, by a seed: {kills}. Every sum is checked as above.

| rounds | kills | wrong_sums | lost_rounds | burnt | minutes |
|---|---|---|---|---|---|
| {row["rounds"]} | {row["kills"]} | {row["wrong_sums"]} | {row["lost_rounds"]} | {row["burnt"]} | {row["seconds"] / 60:.1f} |

![Resident memory of the server's programs and of the nodes over the soak](images/soak.png)

Resident memory in MiB, of processes older than 20 s: at the end of the first third, the most, and at the end. What nodes share
with the process that they are forked from counts in each.

| process | first third | most | end |
|---|---|---|---|
{table}
Measured {row["date"]} UTC at {row["commit"]}.
"""


def _transport(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    ours, theirs, machine = rows[-1]["figures"], rows[-1]["rival"], rows[-1]["machine"]
    secure = "secure_rounds" in ours
    table = "".join(
        f"| {words} | {_number(ours.get(name))} | {_number(theirs.get(name))} | {_number(ours.get(f'secure_{name}'))} |\n"
        for name, words in _COSTS.items()
    )
    return f"""
## What a round costs

`fedpeft bench transport{" --full" if secure else ""} --json`, {ours["nodes"]} nodes of each kind, the same app on the same kind of SuperLink.
Requests and bytes are counted by a relay that ends TLS in front of the SuperLink: HTTP with its heads, polls and heartbeats
included, with nodes that ask every 0.1 to 1 s. Processor time is that of a node and of all that it starts.
`client_time_speedup_vs_stock` is **{ours["client_time_speedup_vs_stock"]:.0f}**.

| per client and round | embedded | stock SuperNode | embedded, secure aggregation |
|---|---|---|---|
{table}
Without secure aggregation except in the last column: a round is then one message per client, which favours the stock
SuperNode. On {machine["cores"]} shared cores, Python {machine["python"]}, flwr {machine["flwr"]}; the default without `--full`
takes three nodes of each kind and one stock round. Where a stock SuperNode needs more than 20 s for a message, the server asks
it again, and the ratio is larger than it should be.
"""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    write_page()
