"""Files on disk: reading foreign files safely, the artifacts of this project, and processes that make them together.

`files`, `fact_tables` and `downloads` read foreign files: errors are one sentence, and no code in a file runs.
Artifacts (activation stores, SAEs, feature tables) are addressed by the spec that made them (`fingerprints`), never
half-written (`writing`), verified by their digests (`digests`). A folder holds the artifact that was last finished for
it; artifacts of other specs are kept beside it, as `<folder>.<its hash>` (`places`). Several processes share the work
through their folders (`distributed`). No model is used here.
"""

from storage.digests import (
    check_digest_file,
    check_file,
    check_files,
    digest_file,
    digest_of,
    embedded_digest,
    load_tensors,
    save_tensors,
)
from storage.fingerprints import code_fingerprint, meta_head, modules_of, spec_hash
from storage.places import (
    claim,
    folder_name,
    is_complete,
    load_if_complete,
    load_or_make,
    locked,
    publish,
    removed_on_error,
)
from storage.writing import Damaged, checked_meta, naming_a_full_disk, read_meta, replacing, write_meta

__all__ = [
    "Damaged",
    "locked",
    "embedded_digest",
    "check_digest_file",
    "check_file",
    "check_files",
    "claim",
    "code_fingerprint",
    "digest_file",
    "digest_of",
    "removed_on_error",
    "folder_name",
    "meta_head",
    "is_complete",
    "load_or_make",
    "load_tensors",
    "modules_of",
    "naming_a_full_disk",
    "load_if_complete",
    "publish",
    "read_meta",
    "replacing",
    "save_tensors",
    "checked_meta",
    "spec_hash",
    "write_meta",
]
