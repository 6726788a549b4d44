"""Copies and near copies share a group; unrelated faces do not; the search agrees with brute force."""

import numpy as np

from fakegan.data import duplicates
from fakegan.data.duplicates import MAX_HASH_DISTANCE, find_duplicates, near_links_among
from fakegan.data.images import looks


def random_thumbs(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64), dtype=np.uint8)


def search(groups, hashes, thumbs, file_keys=None, pixel_keys=None):
    """What `find_duplicates` finds, and the names of the merged groups."""
    unlike = np.arange(len(groups))
    found = find_duplicates(
        np.array(groups),
        unlike if file_keys is None else np.array(file_keys),
        unlike if pixel_keys is None else np.array(pixel_keys),
        np.array(hashes, dtype=np.uint64),
        thumbs,
    )
    return found, [groups[row] for row in found.first.tolist()]


def test_exact_copies_by_file_and_by_pixels_merge_through_each_other():
    """0 and 1 are one file, 1 and 2 have the same pixels, 3 stands alone."""
    found, merged = search(list("abcd"), [0, 0, 0, 2**40 - 1], random_thumbs(4), [7, 7, 8, 9], [1, 1, 1, 2])
    assert merged == ["a", "a", "a", "d"]
    assert found.exact.tolist() == [False, True, True, False]
    assert not found.near.any()


def test_near_needs_the_hash_and_the_look():
    look = random_thumbs(2)
    thumbs = look[[0, 0, 0, 1]]
    hashes = [0, 2**MAX_HASH_DISTANCE - 1, 2 ** (MAX_HASH_DISTANCE + 8) - 1, 1]
    found, merged = search(list("abcd"), hashes, thumbs)
    # b is 6 bits from a; c looks the same but is 14 bits from a and 8 from b; d is 1 bit from a but looks
    # different
    assert merged == ["a", "a", "c", "d"]
    assert found.near.tolist() == [False, True, False, False]


def test_declared_groups_are_merged_through_a_duplicate():
    _, merged = search(["anna", "bert", "anna", "bert", "carl"], [0, 2**20 - 1, 2**40, 2**50, 2**63], random_thumbs(5))
    assert merged == ["anna", "bert", "anna", "bert", "carl"]
    _, merged = search(
        ["anna", "bert", "anna", "bert", "carl"],
        [0, 2**20 - 1, 2**40, 2**50, 2**63],
        random_thumbs(5),
        file_keys=[0, 1, 5, 5, 4],  # a picture of anna is one of bert
    )
    assert merged == ["anna"] * 4 + ["carl"]


def test_a_long_chain_is_one_group():
    count = 300
    names = [f"g{i:03d}" for i in range(count)]
    file_keys = [i // 2 for i in range(count)]  # 0-1, 2-3, ...
    pixel_keys = [(i + 1) // 2 for i in range(count)]  # 1-2, 3-4, ...
    _, merged = search(names, np.arange(count) << 20, random_thumbs(count), file_keys, pixel_keys)
    assert set(merged) == {"g000"}


def test_many_blank_pictures_are_one_group_and_cost_little():
    count = 5_000
    thumbs = np.full((count, 64), 9, dtype=np.uint8)
    found, merged = search([f"g{i}" for i in range(count)], np.zeros(count), thumbs)
    assert set(merged) == {"g0"}
    assert len(found.links) == count - 1


def test_agrees_with_brute_force_and_counts_bits_alike(monkeypatch):
    """Families of pictures around a few hashes, some within reach of each other and some not."""
    rng = np.random.default_rng(1)
    count = 300
    hashes = rng.integers(0, 2**63, 12, dtype=np.uint64)[rng.integers(0, 12, count)]
    for _ in range(5):  # up to five flipped bits each
        hashes ^= np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    thumbs = random_thumbs(3)[rng.integers(0, 3, count)]
    pairs = {
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if int(hashes[a] ^ hashes[b]).bit_count() <= MAX_HASH_DISTANCE and (thumbs[a] == thumbs[b]).all()
    }
    groups = [str(row) for row in range(count)]
    expected = components(count, pairs)
    assert len(pairs) > 100
    assert 12 < len(set(expected)) < count
    assert search(groups, hashes, thumbs)[1] == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # NumPy 1.26
    assert search(groups, hashes, thumbs)[1] == expected
    assert set(map(tuple, near_links_among(hashes, thumbs).tolist())) <= pairs


def test_hashes_of_unrelated_noise_do_not_chain():
    noise = np.random.default_rng(2).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    pixels = noise.repeat(8, axis=1).repeat(8, axis=2)
    hashes, thumbs = zip(*map(looks, pixels), strict=True)
    thumbs = np.frombuffer(b"".join(thumbs), dtype=np.uint8).reshape(-1, 64)
    _, merged = search([str(row) for row in range(200)], hashes, thumbs)
    assert len(set(merged)) == 200
    assert duplicates.MIN_CORRELATION > 0.9


def test_every_pair_of_hashes_within_reach_is_found_once_and_no_other():
    """Families around a few hashes, 1 to 8 bits apart: against all pairs."""
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**63, 20, dtype=np.uint64)[rng.integers(0, 20, 400)]
    for _ in range(6):
        hashes ^= rng.integers(0, 2, 400).astype(np.uint64) << rng.integers(0, 64, 400).astype(np.uint64)
    hashes = np.unique(hashes)
    rng.shuffle(hashes)
    apart = {(a, b): int(hashes[a] ^ hashes[b]).bit_count() for b in range(len(hashes)) for a in range(b)}
    within = {pair for pair, bits in apart.items() if bits <= MAX_HASH_DISTANCE}
    assert {MAX_HASH_DISTANCE, MAX_HASH_DISTANCE + 1} <= set(apart.values())
    thumbs = np.full((len(hashes), 64), 7, dtype=np.uint8)  # all look alike
    found = list(map(tuple, near_links_among(hashes, thumbs).tolist()))
    assert len(found) == len(set(found))
    assert set(found) == within


def components(count: int, pairs: set[tuple[int, int]]) -> list[str]:
    first = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(first[a], first[b])
            changed |= first[a] != low or first[b] != low
            first[a] = first[b] = low
    return [str(row) for row in first]
