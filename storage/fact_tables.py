"""Tables of facts about pictures: any encoding and separator, rows matched to files, a warning of doubtful cases."""

import codecs
import csv
import io
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import naming, ordinary_file, quoted

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")
SEPARATORS = ",;\t|"


def text_of(file: Path) -> tuple[str, str]:
    """The text of a file and its encoding: UTF-8 with or without a BOM, UTF-16 with one, else Windows' Latin-1.

    All line ends become \\n.
    """
    text, encoding = _decoded(file, ordinary_file(file).read_bytes())
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decoded(file: Path, raw: bytes) -> tuple[str, str]:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with naming(file):
            return raw.decode("utf-16"), "UTF-16"
    try:
        return raw.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("cp1252"), "Latin-1"  # Windows': quotation marks where Latin-1 has control characters
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "Latin-1"


def read_csv(file: Path, **options: Any) -> "pd.DataFrame":
    """`pandas.read_csv` with any encoding. Raises ValueError and OSError that name the file."""
    import pandas as pd

    with naming(file):
        return pd.read_csv(io.StringIO(text_of(file)[0]), **options)


def read_facts(file: Path, pictures: Sequence[str]) -> "pd.DataFrame":
    """Facts indexed by position in `pictures` (names of files), with a row for each picture that the table names.

    A text column may hold any word, also NA; in columns of numbers NA, null and so on are missing values. Names match
    exactly, else after Unicode normalisation (NFC). One warning counts the doubtful cases: rows that name no picture,
    pictures without a row, names in another form, the words NA, a guessed encoding. Raises ValueError where the table
    does not fit the folder: no column of names, a duplicate column, two rows for a picture, no row for any picture.
    """
    text, encoding = text_of(file)
    separator, column = _layout(file, text)
    table, words = _columns(file, text, separator, column)
    names, table.columns = table.pop(column).fillna(""), [name.strip() for name in table.columns if name != column]
    rows, other_form = _matched(names, pictures)
    if not (rows >= 0).any():
        first = quoted(names.iloc[0])[1:-1] if len(names) else "missing"
        raise ValueError(
            f"{file} names no picture of the folder (its first is {first}); "
            f"write paths below the folder, such as {pictures[0]}."
        )
    table, unmatched = table[rows >= 0].set_index(rows[rows >= 0]), names[rows < 0]
    if twice := table.index[table.index.duplicated()].unique().tolist():
        raise ValueError(
            f"{file} has several rows for {pictures[twice[0]]}{_and_more(len(twice))}; leave one row for each picture."
        )
    with naming(file):
        n_short = _short_rows(text, separator)
    doubts = [
        (len(unmatched), f"rows name no picture of the folder ({', '.join(quoted(n)[1:-1] for n in unmatched[:3])} …)"),
        (len(pictures) - len(table), f"pictures have no row, such as {_without_row(pictures, table)}"),
        (other_form, "names match only in the same Unicode form (NFC)"),
        *((count, f"values of column {name} are the word {word}, not missing") for name, word, count in words),
        *_nearly_numbers(table),
        (n_short, "rows have fewer values than the first line has names; the others are missing"),
    ]
    said = [f"{count:,} {what}" for count, what in doubts if count]
    if encoding == "Latin-1":
        said.append("it is no UTF-8 and was read as Latin-1")
    if said:
        warnings.warn(f"{file}, of {len(names):,} rows: {'; '.join(said)}.", stacklevel=2)
    return table


def _nearly_numbers(table: "pd.DataFrame") -> Iterator[tuple[int, str]]:
    """(count, what) of the few values that turn a column of numbers into text, usually typing errors."""
    import pandas as pd

    for name in table.columns:
        known = table[name].dropna()
        odd = known[pd.to_numeric(known, errors="coerce").isna()]
        if 0 < 2 * len(odd) < len(known):
            yield len(odd), f"values of column {name} are no numbers ({quoted(odd.iloc[0])} …), so the column is text"


def _short_rows(text: str, separator: str) -> int:
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    n_names = len(next(rows))
    return sum(0 < len(row) < n_names for row in rows)


def _and_more(n: int) -> str:
    return f" and {n - 1:,} other pictures" if n > 1 else ""


def _without_row(pictures: Sequence[str], table: "pd.DataFrame") -> str:
    named = set(table.index)
    return next((pictures[i] for i in range(len(pictures)) if i not in named), "")


def _layout(file: Path, text: str) -> tuple[str, str]:
    """The separator under which the first line has a column of file names, and that column."""
    for separator in SEPARATORS:
        with naming(file):
            header = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True), [])
        names = [name.strip() for name in header]
        found = [header[i] for known in FILE_COLUMNS for i, name in enumerate(names) if name.lower() == known]
        if found:
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{file} has several columns {quoted(min(twice))[1:-1]}; give each its own name.")
            return separator, found[0]
    raise ValueError(f"{file} does not say which picture a row is about; name the files in a column file_name.")


def _columns(file: Path, text: str, separator: str, column: str) -> tuple["pd.DataFrame", list[tuple[str, str, int]]]:
    """The table, and (column, word, count) of words such as NA in text columns, which are not missing values."""
    import pandas as pd

    options: dict[str, Any] = {"sep": separator, "dtype": {column: str}, "index_col": False, "skipinitialspace": True}
    with naming(file), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(io.StringIO(text), **options)
            as_written = pd.read_csv(io.StringIO(text), **options, keep_default_na=False, na_values=[""])
        except pd.errors.ParserWarning:
            raise ValueError(
                f"{file} has rows of more values than its first line has names; quote values that hold a {separator!r}."
            ) from None
    if separator != ",":
        for name in set(table.columns) - {column}:  # decimal commas, as in German or French tables
            texts = table[name].dropna().astype(str)
            if texts.str.fullmatch(r"[+-]?\d*,?\d+").all() and texts.str.contains(",").any():
                table[name] = as_written[name] = table[name].astype("string").str.replace(",", ".").astype(float)
    words = []
    for name in as_written.columns:
        known = table[name].dropna()
        if name == column or known.empty or pd.api.types.infer_dtype(known) == "string":
            missing = as_written[name][table[name].isna()].dropna()
            words += [(name, word, count) for word, count in missing.value_counts().items() if name != column]
            table[name] = as_written[name]
    return table, words


def _matched(names: "pd.Series", pictures: Sequence[str]) -> tuple[Any, int]:
    """Positions (n,) of the named pictures, -1 for none; and how many names match only in another Unicode form."""
    import numpy as np

    exact = {name: i for i, name in enumerate(pictures)}
    alike = {unicodedata.normalize("NFC", name): i for name, i in exact.items()}
    written = [name.strip().replace("\\", "/").removeprefix("./") for name in names]
    rows = np.array([exact.get(name, -1) for name in written], np.int64)
    other = [i for i in np.flatnonzero(rows < 0) if unicodedata.normalize("NFC", written[i]) in alike]
    rows[other] = [alike[unicodedata.normalize("NFC", written[i])] for i in other]
    return rows, len(other)
