"""What is read is what was written, to the bit."""

import numpy as np
import pytest

from mmer_jax.integrity import Damaged, changes, digests, read_signed, write_signed

CONTENT = {"trial": "{} fold 0 seed 1", "score": float("nan"), "files": {"é/a": [3, "0f"]}}


def test_every_flipped_bit_and_every_cut_of_signed_json_is_found(tmp_path):
    """Or changes nothing of what was written, as where the word "digest" itself is hit."""
    path = tmp_path / "x.json"
    write_signed(path, CONTENT)
    assert repr(read_signed(path)) == repr(CONTENT)
    whole = path.read_bytes()
    variants = [whole[:size] for size in range(len(whole) - 1)]
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        variants.append(bytes(flipped))
    harmless = 0
    for content in variants:
        path.write_bytes(content)
        try:
            found = read_signed(path)
        except Damaged as error:
            assert str(error).startswith("is damaged")
            continue
        harmless += 1
        assert repr({name: found[name] for name in CONTENT}) == repr(CONTENT), content
    assert harmless < 0.05 * len(variants)


def test_json_without_a_digest_is_read_as_it_is(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ["b"]}')
    assert read_signed(tmp_path / "x.json") == {"a": ["b"]}
    (tmp_path / "x.json").write_text('["a"]')
    with pytest.raises(Damaged, match="no JSON object"):
        read_signed(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(bytes(9)), "has 9 bytes instead of 10"),
        (lambda path: path.write_bytes(bytes(9) + b"\1"), "has other bytes than were written"),
    ],
)
def test_changed_files_are_named(tmp_path, change, words):
    rng = np.random.default_rng(0)
    for name in ("a/b", "a/c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(rng.bytes(10))
    known = digests(tmp_path)
    assert list(known) == ["a/b", "a/c", "d"] and changes(tmp_path, known) == []
    change(tmp_path / "a/c")
    assert changes(tmp_path, known) == [f"{tmp_path / 'a/c'} {words}"]
