"""Copies and near copies share a group; unrelated faces do not; the search agrees with brute force."""

import numpy as np
import pytest

from fakegan.data import duplicates
from fakegan.data.duplicates import MAX_HASH_DISTANCE, TABLES, find_duplicates, look_alike, pairs_of_table
from fakegan.data.images import hash_and_thumbnail
from fakegan.labels import FAKE, REAL


def random_thumbs(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64), dtype=np.uint8)


def search(groups, hashes, thumbs, file_keys=None, pixel_keys=None, labels=None):
    """What `find_duplicates` finds, and the names of the merged groups."""
    unlike = np.arange(len(groups))
    found = find_duplicates(
        np.array(groups),
        unlike if file_keys is None else np.array(file_keys),
        unlike if pixel_keys is None else np.array(pixel_keys),
        np.array(hashes, dtype=np.uint64),
        thumbs,
        np.zeros(len(groups), dtype=np.int8) if labels is None else labels,
    )
    return found, [groups[row] for row in found.first.tolist()]


def test_copies_by_file_and_by_pixels_merge_their_groups_through_each_other():
    """0 and 1 are one file, 1 and 2 have the same pixels, 3 was declared to be of 2's group, 4 stands alone."""
    hashes = [0, 0, 0, 2**40 - 1, 2**60 - 1]
    found, merged = search(list("abcce"), hashes, random_thumbs(5), [7, 7, 8, 9, 10], [1, 1, 1, 2, 3])
    assert merged == ["a", "a", "a", "a", "e"]
    assert found.exact.tolist() == [False, True, True, False, False]
    assert not found.near.any()


def test_near_needs_the_hash_and_the_look():
    look = random_thumbs(2)
    thumbs = look[[0, 0, 0, 1]]
    hashes = [0, 2**MAX_HASH_DISTANCE - 1, 2 ** (MAX_HASH_DISTANCE + 8) - 1, 1]
    found, merged = search(list("abcd"), hashes, thumbs)
    # b is 6 bits from a; c looks the same but is 14 bits from a and 8 from b; d is 1 bit from a but looks different
    assert merged == ["a", "a", "c", "d"]
    assert found.near.tolist() == [False, True, False, False]


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
    labels = np.full(count, FAKE)
    labels[[0, 7]] = REAL
    found, merged = search([f"g{i}" for i in range(count)], np.zeros(count), thumbs, labels=labels)
    assert set(merged) == {"g0"}
    assert found.near.tolist() == [False] + [True] * (count - 1)
    assert found.both_classes == count - 2  # each with the first only


def families(count: int, heads: int, flips: int, seed: int) -> np.ndarray:
    """Hashes, each up to so many bits from one of a few."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, heads, dtype=np.uint64)[rng.integers(0, heads, count)]
    for _ in range(flips):
        hashes ^= rng.integers(0, 2, count).astype(np.uint64) << rng.integers(0, 64, count).astype(np.uint64)
    return hashes


def pairs_by_brute_force(hashes, thumbs, file_keys, pixel_keys) -> tuple[set, set]:
    """Pairs of exact and of near copies: with the first of a file, of its pixels, of a hash and its look."""
    count, hashes = len(hashes), hashes.tolist()
    firsts = ((keys.tolist().index(key), b) for keys in (file_keys, pixel_keys) for b, key in enumerate(keys))
    exact = {(a, b) for a, b in firsts if a != b}
    alike = np.corrcoef(thumbs) >= 0.98
    near, kept = set(), []
    for b in sorted(set(range(count)) - {b for _, b in exact}):
        first = next((a for a in kept if hashes[a] == hashes[b] and alike[a, b]), None)
        if first is not None:
            near.add((first, b))
            continue
        near |= {(a, b) for a in kept if (hashes[a] ^ hashes[b]).bit_count() <= 6 and alike[a, b]}
        kept.append(b)
    return exact, near


@pytest.mark.parametrize("block", [40, 65536])  # candidates at a time
@pytest.mark.parametrize("has_bitwise_count", [True, False])  # NumPy 1.26 lacks it
def test_agrees_with_brute_force(monkeypatch, block, has_bitwise_count):
    """Families of pictures around a few hashes, some within reach of each other, alike, repeated or grouped."""
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    if not has_bitwise_count:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    rng = np.random.default_rng(1)
    count = 300
    hashes = families(count, 12, 4, seed=1)
    thumbs = random_thumbs(3)[rng.integers(0, 3, count)].astype(int) + rng.integers(-19, 20, (count, 64))
    thumbs = thumbs.clip(0, 255).astype(np.uint8)  # of one look, some 98% alike and some not quite
    labels = rng.integers(0, 2, count)
    group_keys, file_keys, pixel_keys = (rng.integers(0, most, count) for most in (5000, 3000, 3000))
    pixel_keys[::2] = file_keys[::2]
    file_keys[:10] = pixel_keys[:10] = file_keys[0]  # one file ten times
    exact, near = pairs_by_brute_force(hashes, thumbs, file_keys, pixel_keys)
    assert len(exact) > 15
    assert len(near) > 300

    found, merged = search(group_keys.tolist(), hashes, thumbs, file_keys, pixel_keys, labels)

    declared = {(a, b) for b in range(count) for a in range(b) if group_keys[a] == group_keys[b]}
    first = components(count, declared | exact | near)
    assert 12 < len(set(first)) < count / 2
    assert found.first.tolist() == first
    assert merged == [group_keys[row] for row in first]
    assert set(np.flatnonzero(found.exact)) == {b for _, b in exact}
    assert set(np.flatnonzero(found.near)) == {b for _, b in near}
    assert found.both_classes == sum(labels[a] != labels[b] for a, b in exact | near)


def test_hashes_of_unrelated_noise_do_not_chain():
    noise = np.random.default_rng(2).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    pixels = noise.repeat(8, axis=1).repeat(8, axis=2)
    hashes, thumbs = zip(*map(hash_and_thumbnail, pixels), strict=True)
    thumbs = np.frombuffer(b"".join(thumbs), dtype=np.uint8).reshape(-1, 64)
    _, merged = search([str(row) for row in range(200)], hashes, thumbs)
    assert len(set(merged)) == 200


@pytest.mark.parametrize("block", [40, 65536])  # candidates at a time
def test_every_pair_of_hashes_within_reach_is_found_once_and_no_other(monkeypatch, block):
    """Families around a few hashes, 0 to 8 bits apart: against all pairs, of all and of different kin."""
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    hashes = families(400, 20, 6, seed=3)
    apart = {(a, b): int(hashes[a] ^ hashes[b]).bit_count() for b in range(len(hashes)) for a in range(b)}
    assert {0, MAX_HASH_DISTANCE, MAX_HASH_DISTANCE + 1} <= set(apart.values())
    within = {pair for pair, bits in apart.items() if bits <= MAX_HASH_DISTANCE}
    for kin in (np.arange(400), np.sort(np.random.default_rng(4).integers(0, 8, 400))):
        found = [tuple(sorted(pair)) for table in TABLES for pair in _pairs(table, hashes, kin)]
        assert len(found) == len(set(found))
        assert set(found) == {(a, b) for a, b in within if kin[a] != kin[b]}


def _pairs(table, hashes, kin) -> list[list[int]]:
    return np.concatenate([np.empty((2, 0), int), *pairs_of_table(table, hashes, kin)], axis=1).T.tolist()


@pytest.mark.parametrize("octets", [2, 3, 4])
def test_hashes_that_agree_on_just_so_many_octets_are_found(octets):
    """Pairs up to six bits apart, one in each of the other octets or more, among hashes far from each other."""
    rng = np.random.default_rng(octets)
    by_octet = rng.integers(0, 256, (1000, 8), dtype=np.uint8)
    for one, other in zip(by_octet[::2], by_octet[1::2], strict=True):
        flipped = rng.permutation(8)[octets:]
        other[:] = one
        for octet in [*flipped, *rng.choice(flipped, octets - 2)]:  # the latter may flip a bit back
            other[octet] ^= np.uint8(1 << rng.integers(0, 8))
    found = [pair for table in TABLES for pair in _pairs(table, by_octet.view(np.uint64).ravel(), np.arange(1000))]
    assert sorted(map(sorted, found)) == [[row, row + 1] for row in range(0, 1000, 2)]


def test_looks_are_alike_from_a_correlation_of_098_on():
    rng = np.random.default_rng(6)
    thumbs = random_thumbs(2000).astype(int)
    thumbs[1::2] = thumbs[::2] + rng.integers(-26, 27, (1000, 64))
    thumbs = thumbs.clip(0, 255).astype(np.uint8)
    expected = [np.corrcoef(thumbs[row : row + 2])[0, 1] >= 0.98 for row in range(0, 2000, 2)]
    assert 0.2 < np.mean(expected) < 0.8
    assert look_alike(thumbs, np.arange(0, 2000, 2), np.arange(1, 2000, 2)).tolist() == expected


def test_a_flat_look_is_like_flat_ones_only():
    thumbs = np.full((4, 64), [[0], [255], [9], [9]], dtype=np.uint8)
    thumbs[2, 0] += 1  # nobody sees it
    thumbs[3, :32] += 1
    one, other = np.array([0, 0, 2, 0, 3, 3]), np.array([1, 2, 0, 3, 0, 3])
    assert look_alike(thumbs, one, other).tolist() == [True, True, True, False, False, True]


def test_frames_of_a_film_are_not_all_compared(monkeypatch):
    """600 like frames, every other one fake: those within reach and of both classes have to be counted."""
    given, compared = 0, 0

    def giving(*table):
        nonlocal given
        for pairs in pairs_of_table(*table):
            given += pairs.shape[1]
            yield pairs

    def comparing(thumbs, a, b):
        nonlocal compared
        compared += len(a)
        return look_alike(thumbs, a, b)

    monkeypatch.setattr(duplicates, "pairs_of_table", giving)
    monkeypatch.setattr(duplicates, "look_alike", comparing)
    monkeypatch.setattr(duplicates, "_BLOCK", 300)
    hashes = np.arange(600, dtype=np.uint64)
    hashes = hashes % 8 | hashes // 8 % 8 << 20 | hashes // 64 % 16 << 40  # up to 3, 3 and 4 bits
    within = np.array([[int(a ^ b).bit_count() <= MAX_HASH_DISTANCE for b in hashes] for a in hashes])
    labels = np.arange(600) % 2
    found, merged = search([str(row) for row in range(600)], hashes, np.tile(random_thumbs(1), (600, 1)), labels=labels)
    both = int(within[labels == 0][:, labels == 1].sum())
    assert (set(merged), int(found.near.sum()), found.both_classes) == ({"0"}, 599, both)
    assert within.sum() / 2 > 1.9 * both
    assert both < compared < 1.1 * both
    assert both < given < 1.6 * both


def components(count: int, pairs: set[tuple[int, int]]) -> list[int]:
    first = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(first[a], first[b])
            changed |= first[a] != low or first[b] != low
            first[a] = first[b] = low
    return first
