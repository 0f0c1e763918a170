"""SAEs of other libraries, loaded so that they compute the same: one module for each library, used by `lib.load_sae`.

Each is registered as an entry point of the group `monosemantic_vision.formats` (see `lib.registry`). `safe_files` reads
pickles without running their code, `checkpoint` records which parts of a file were read, and `assembly` converts every
library's conventions to those of `lib.SAE`. SAELens' files are written, too.
"""

from peers.saelens import export_saelens

__all__ = ["export_saelens"]
