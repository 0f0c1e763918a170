"""Training metrics as lines of JSON, and as TensorBoard events where TensorBoard is installed."""

import importlib.util
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from storage import check_file, naming_a_full_disk, read_meta

METRICS = "metrics.jsonl"


class TrainingLog:
    """Keeps the rows of a training's metrics in `rows`, and appends them to `metrics.jsonl` where there is a folder.

    rows: those until the checkpoint from which training resumes; lines that were written after it are repeated.
    """

    def __init__(self, folder: Path | None, rows: Sequence[dict[str, float]] = ()) -> None:
        self._started, self._before = time.perf_counter(), 0.0
        self.rows = list(rows)
        self._file = self._board = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        self._before = self.rows[-1]["seconds"] if self.rows else 0.0
        step = self.rows[-1]["step"] if self.rows else 0
        if not step:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # of a run that begins again
        with naming_a_full_disk(self._path):
            self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
            self._file = self._path.open("a", encoding="utf-8")
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    @property
    def seconds(self) -> float:
        """Time spent in training, earlier runs up to the checkpoint included."""
        return self._before + time.perf_counter() - self._started

    def write(self, row: dict[str, float]) -> None:
        """Add one row; it needs a `step`."""
        self.rows.append({**row, "seconds": round(self.seconds, 3)})
        if self._file is None:
            return
        with naming_a_full_disk(self._path):
            self._file.write(json.dumps(self.rows[-1]) + "\n")
            self._file.flush()
            for name, value in row.items() if self._board is not None else ():
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Close the files."""
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()


def read_metrics(folder: Path | str) -> list[dict[str, float]]:
    """The rows of a folder's `metrics.jsonl`; a truncated last line is left out.

    Raises Damaged (a ValueError) where the file of a finished training was changed.
    """
    path = Path(folder) / METRICS
    if digest := (read_meta(folder) or {}).get("log"):
        check_file(path, digest)
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
