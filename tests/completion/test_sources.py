"""Sources of entries: blocks of those in memory, and the checks of a block."""

from __future__ import annotations

import numpy as np
import pytest

from tensornet.completion.sources import MemoryEntries, largest
from tensornet.files.entries import BLOCK


@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_blocks_of_memory_are_all_entries_in_their_order(count):
    indices, values = np.arange(2 * count).reshape(count, 2), np.arange(count) / 2
    source = MemoryEntries(indices, values)
    blocks = [source.read(block) for block in range(len(source.edges) - 1)]
    assert source.order == 2
    assert max(len(part) for _, part in blocks) <= BLOCK
    assert np.array_equal(np.concatenate([part for part, _ in blocks]), indices)
    assert np.array_equal(np.concatenate([part for _, part in blocks]), values)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint64])
def test_the_largest_indices(kind):
    indices = np.array([[3, 255, 0], [4, 7, 0]], kind)
    assert largest((indices, np.zeros(2)), 0, None).tolist() == [4, 255, 0]
    assert largest((indices, np.zeros(2)), 0, (5, 256, 1)).tolist() == [4, 255, 0]


def test_the_first_wrong_row_is_named_whatever_its_mode():
    indices = np.array([[0, 0], [0, 9], [-1, 0]])
    with pytest.raises(ValueError, match=r"got 9 for mode 1 of size 9 in row 101$"):
        largest((indices, np.zeros(3)), 100, (9, 9))
    with pytest.raises(ValueError, match=r"got -1 for mode 0 in row 102$"):
        largest((indices, np.zeros(3)), 100, None)
    with pytest.raises(ValueError, match=r"got 18446744073709551615 for mode 0 of size 9 in row 0$"):
        largest((np.array([[-1]]).astype(np.uint64), np.zeros(1)), 0, (9,))
