"""Name the project's code as Software Heritage does: SWHIDs of a commit and of a folder in it.

A SWHID of these kinds is the id that git has for the same object, so no package and no network is
needed. Promises none where the id would not identify the code: in a repository of SHA-256, whose
ids are others, and where the commit or the folder is not known. Whether Software Heritage has a
copy is another question.
"""

import re

_SHA1 = re.compile("[0-9a-f]{40}")


def software_ids(commit: str | None, tree: str | None) -> list[str]:
    """Return the SWHIDs of a commit and of the project's tree in it; empty if one is not known."""
    if not (commit and tree and _SHA1.fullmatch(commit) and _SHA1.fullmatch(tree)):
        return []
    return [f"swh:1:rev:{commit}", f"swh:1:dir:{tree}"]
