"""The README's results table, made from benchmarks/results.json: `python -m benchmarks.table`."""

from typing import Any

from benchmarks.measured import RESULTS, rows_of

HEAD = "| result | measured | unit | beside it | command |\n|---|---|---|---|---|"


def table() -> str:
    """All rows as Markdown, in the order of their names."""
    return "\n".join([HEAD, *(_line(row) for row in rows_of(RESULTS))])


def _line(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {row['spread']:.2g}"
    seeds = f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) > 1 else ""
    beside = row["reference"]
    if row["reference_value"] is not None:
        beside = f"{row['reference_value']:.5g}: {beside}"
    value = f"{row['value']:.5g}{spread}{seeds}"
    return f"| `{row['name']}` | {value} | {row['unit']} | {beside} | `{row['command']}` |"


if __name__ == "__main__":
    print(table())
