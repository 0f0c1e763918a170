"""Training metrics as lines of JSON, and as TensorBoard events where TensorBoard is installed."""

import importlib.util
import json
import time
from pathlib import Path


class TrainingLog:
    """Keeps the rows of a training's metrics in `rows`, and appends them to `metrics.jsonl` where there is a folder.

    `step` is where training resumes: lines after it, written since the last checkpoint, come again and are dropped.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._started, self._before = time.perf_counter(), 0.0
        self.rows: list[dict[str, float]] = []
        self._file = self._board = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        self.rows = [row for row in read_metrics(folder) if row["step"] <= step]
        self._before = self.rows[-1]["seconds"] if self.rows else 0.0
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
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
        if self._file is not None:
            self._file.write(json.dumps(self.rows[-1]) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Close the files."""
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()


def read_metrics(folder: Path | str) -> list[dict[str, float]]:
    """The rows of a folder's `metrics.jsonl`; a last line that was cut off is left out."""
    path = Path(folder) / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
