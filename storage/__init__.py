"""Files on disk: reading foreign files safely, the artifacts of this project, and processes that make them together.

`files`, `tables` and `downloads` read foreign files: errors are one sentence, and no code in a file runs.
Artifacts (activation stores, SAEs, feature tables) are addressed by the spec that made them (`fingerprints`), never
half-written (`writing`), verified by their digests (`digests`). A folder holds the artifact that was last finished for
it; artifacts of other specs are kept beside it, as `<folder>.<its hash>` (`places`). Several processes share the work
through their folders (`distributed`). No model is used here.
"""

from storage.digests import (
    carried_digest,
    check_beside,
    check_file,
    check_files,
    digest_file,
    digest_of,
    load_tensors,
    save_tensors,
)
from storage.fingerprints import code_fingerprint, head_of, modules_of, spec_hash
from storage.places import alone, claim, discarding, folder_name, is_complete, kept, opened, publish
from storage.writing import Damaged, naming_a_full_disk, read_meta, replacing, sound_meta, write_meta

__all__ = [
    "Damaged",
    "alone",
    "carried_digest",
    "check_beside",
    "check_file",
    "check_files",
    "claim",
    "code_fingerprint",
    "digest_file",
    "digest_of",
    "discarding",
    "folder_name",
    "head_of",
    "is_complete",
    "kept",
    "load_tensors",
    "modules_of",
    "naming_a_full_disk",
    "opened",
    "publish",
    "read_meta",
    "replacing",
    "save_tensors",
    "sound_meta",
    "spec_hash",
    "write_meta",
]
