"""Tables in Markdown, such as the results of several runs."""

from collections.abc import Mapping, Sequence


def results_table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    """A Markdown table with a line for each run, and with aligned numbers.

    Args:
        rows: name of the run -> content of its `all_results.json`.
        columns: keys of `all_results.json`. If a run does not have a key, the cell is a dash.
    """
    body = [[name, *(_cell(results.get(column)) for column in columns)] for name, results in rows.items()]
    return aligned([["", *columns], *body])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. The first row is its head. All columns except the first are aligned to the right."""
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
