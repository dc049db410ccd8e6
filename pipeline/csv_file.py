"""Write CSV files."""

import csv
import io
from collections.abc import Iterable


def csv_file(head: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a CSV file as of RFC 4180, in UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
