"""Sorts numbers and draws them as a table; it needs a package from the index."""

from tabulate import tabulate


def handler(input):
    values = sorted(input.get("values", []))
    rows = [(rank, value) for rank, value in enumerate(values, start=1)]
    print(tabulate(rows, headers=["rank", "value"]))
    return {"count": len(values), "sorted": values}
