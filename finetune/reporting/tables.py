"""Results of several runs as one text table."""

from collections.abc import Mapping, Sequence


def results_table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    """One line a run, numbers aligned; it reads as Markdown too.

    Args:
        rows: for each run's name its `all_results.json`.
        columns: keys of these; a key that a run lacks shows as a dash.
    """
    body = [[name, *(_cell(results.get(column)) for column in columns)] for name, results in rows.items()]
    return aligned([["", *columns], *body])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its head, all columns but the first aligned to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if value <= 1 else f"{value:.1f}"
