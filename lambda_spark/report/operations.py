"""The lines that `maintain`, `forget`, `restore` and `history` print."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import unquote

from lambda_spark.operations.forget import Certificate
from lambda_spark.operations.history import Entry
from lambda_spark.operations.maintain import Plan
from lambda_spark.operations.restore import Undo
from lambda_spark.text import table

_SHOWN = 10
"""At most this many file names are printed per list."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def maintenance_lines(plan: Plan, *, dry_run: bool) -> list[str]:
    """Describe what `maintain` did or would do.

    Args:
        plan: What was done, or is planned.
        dry_run: Whether the plan has not been carried out.
    """
    would = "would be " if dry_run else ""
    lines = [
        f"{name}: {part.rows:,} rows ({_size(part.bytes)}) from {part.first} to {part.last} {would or 'have '}expired"
        for name, part in plan.expiring.items()
    ]
    if plan.retention_cutoff is not None:
        lines.append(f"cut date: {plan.retention_cutoff}; older events are rejected, and trends before it are frozen")
    for name, parts in plan.packing.items():
        files, size = sum(part.files for part in parts), sum(part.bytes for part in parts)
        dates = [part.date for part in parts if part.date]
        where = f" of {len(dates)} dates ({dates[0]} to {dates[-1]})" if dates else ""
        lines.append(f"{name}: {files:,} files{where}, {_size(size)}, {would}compacted into fewer")
    for name, deleted in plan.unneeded.items():
        lines.append(f"{name}: {deleted.files:,} files, {_size(deleted.bytes)}, {would}deleted")
    if plan.unneeded and dry_run:
        lines.append("(the files that are compacted now are deleted later, when maintenance.retention is over)")
    return lines or ["nothing to do"]


def certificate_lines(certificate: Certificate, *, dry_run: bool) -> list[str]:
    """Describe what `forget` removed, and from which table versions. No line contains a user's id.

    Args:
        certificate: What was removed, or would be.
        dry_run: Whether nothing was removed.
    """
    title = "This would be removed" if dry_run else f"Certificate of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"{title}: {certificate.users} users asked for, {certificate.found} of them known to this lake"]
    rows = []
    for name, version in certificate.before.items():
        after = certificate.after.get(name, version)
        if name in certificate.rows or (after != version and not dry_run):
            removed = certificate.rows.get(name)
            change = "recomputed or reduced" if removed is None else f"{removed:,} rows removed"
            rows.append({"table": name, "what": change, "from": f"v{version}", "to": "-" if dry_run else f"v{after}"})
    if rows:
        lines += table(rows).splitlines()
    else:
        lines.append("no table has a row of these users")
    if dry_run:
        lines.append("products, pair counts, trends and lists would be recomputed without these rows")
    if certificate.retention_cutoff is not None and rows:
        cutoff = certificate.retention_cutoff
        lines.append(f"trends before {cutoff} are frozen: their product counts may still include these users")
    if certificate.refused:
        lines.append(f"new events of these users {'would be' if dry_run else 'are'} refused from now on")
    if certificate.vacuumed is not None:
        files = sum(deleted.files for deleted in certificate.vacuumed.values())
        lines.append(f"{files:,} files of older versions deleted, {certificate.logs} logs that named a user deleted")
    elif rows and not dry_run:
        lines.append("older versions still hold the rows: `forget --vacuum` with the same users deletes them now,")
        lines.append("and `maintain` deletes them when maintenance.retention is over")
    if certificate.sources:
        lines.append("the rows came from these files, which are not part of the lake and still hold them:")
        lines += _some([unquote(source) for source in certificate.sources])
        if not certificate.refused:
            lines.append("reading these files again, as `restore` does, brings the users back; --refuse prevents that")
    return lines


def undo_lines(undo: Undo) -> list[str]:
    """Describe what `restore` undoes."""
    lines = [f"the lake goes back to {undo.moment:%Y-%m-%d %H:%M:%S} UTC:"]
    for name, (now, then) in undo.versions.items():
        rows_now, rows_then = undo.rows[name]
        lines.append(f"  {name}: v{now} with {rows_now:,} rows, back to v{then} with {rows_then:,}")
    lines.append(
        "  the views are rebuilt, and both streams start over: all files but those in ingest.exclude are read again"
    )
    if undo.retention_cutoff is not None:
        lines.append(f"  the cut date {undo.retention_cutoff} stays")
    if undo.come_back:
        lines.append(f"  {undo.come_back}")
    if undo.files:
        lines.append("files read since then (to leave one out, name it: --set ingest.exclude=NAME):")
        lines += _some(undo.files)
    if undo.changed:
        lines.append("files that have changed meanwhile, and would be read as they are now:")
        lines += _some(undo.changed)
    if undo.topics:
        lines.append(f"topics read since then: {', '.join(undo.topics)}; the next `ingest --source kafka` reads them")
        lines.append("again from their earliest offset; messages that Kafka has deleted meanwhile are lost")
    if undo.lost:
        lines.append("files that would not be read again, so their events would be lost (the restore will not start):")
        lines += _some(undo.lost)
    return lines


def history_table(entries: Sequence[Entry]) -> str:
    """Format the history as a table."""
    return table(
        [
            {
                "time (UTC)": f"{entry.time:%Y-%m-%d %H:%M:%S}",
                "job": entry.job or None,
                "table": entry.table,
                "version": entry.version,
                "operation": entry.operation.lower(),
                "from": entry.read or None,
            }
            for entry in entries
        ]
    )


def _some(names: Sequence[str]) -> list[str]:
    more = [f"  and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else []
    return [f"  {name.removeprefix('file:').replace('///', '/')}" for name in names[:_SHOWN]] + more


def _size(count: float) -> str:
    """Format a number of bytes with its unit."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:,.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
