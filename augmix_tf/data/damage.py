"""What is said of examples that cannot be read, and whether the others may be used without them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from augmix_tf.errors import FileError

# Places that a message names; damage seldom comes alone.
NAMED = 4
TEST_IS_WHOLE = (
    "test images are never left out, even with skip_bad_examples: "
    "the error would be that of other images"
)
OPTION = "set skip_bad_examples to leave them out"
_WRONG = "more than half, so the data are wrong rather than damaged"


@dataclasses.dataclass(frozen=True)
class Bad:
    """Examples that cannot be read.

    Attributes:
        file: its path.
        reason: a few words.
        where: in the file, where it holds several.
        count: how many are lost there.
    """

    file: str
    reason: str
    where: str = ""
    count: int = 1


def settle(
    bad: Sequence[Bad], total: int, what: str, *, skip: bool, whole: bool = False, remedy: str = ""
) -> str:
    """Lets the caller go on without bad examples, and says so on stderr, or refuses.

    Args:
        bad: in the order of their places.
        total: how many examples there should be, the bad ones counted.
        what: these are, in the plural: "3 of 8 <what> ...".
        skip: whether they may be left out, up to half of all.
        whole: they are test examples, which stay together whatever `skip` says.
        remedy: what else can be done about it.

    Returns:
        For the provenance, such as "3 of 8 train records left out"; "" where nothing is bad.

    Raises:
        FileError: they may not be left out, or are more than half. Tells the count and names the
            first few.
    """
    if not bad:
        return ""
    share = _share(bad, total, what)
    broken = 2 * sum(part.count for part in bad) > total
    if whole or broken or not skip:
        why = _WRONG if broken else TEST_IS_WHOLE if whole else OPTION
        raise FileError("; ".join(filter(None, (refusal(bad, total, what), remedy, why))))
    print(f"left out {share}, which cannot be read: {_named(bad)}", file=sys.stderr, flush=True)
    return f"{share} left out"


def refusal(bad: Sequence[Bad], total: int, what: str) -> str:
    """Returns the message of examples that cannot be read, the first few by their names."""
    return f"cannot read {_share(bad, total, what)}: {_named(bad)}"


def _share(bad: Sequence[Bad], total: int, what: str) -> str:
    return f"{sum(part.count for part in bad)} of {total} {what}"


def _named(bad: Sequence[Bad]) -> str:
    shown = []
    file = ""
    for part in bad[:NAMED]:
        place = part.where if part.file == file else f"{part.file} {part.where}".strip()
        shown.append(f"{place} ({part.reason})")
        file = part.file
    more = sum(part.count for part in bad[NAMED:])
    return ", ".join(shown) + (f" and {more} more" if more else "")
