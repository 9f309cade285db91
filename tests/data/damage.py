"""Seeded damage to a folder of feature or label files: what a disk, a hurry or an enemy would do.

Each kind of damage says what must still hold when a reader accepts the folder: "all" (what is read
is what was there), "shape" (numbers or labels may differ, ids and shapes may not), "ids" (shapes
may differ as well) or "table" (a valid folder that says something else).
"""

import csv
import io
import os
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np

KEEPS = ("all", "shape", "ids", "table")  # ever less
FACES = "manet_UTT"
MOST_BYTES = 1 << 16  # of a file that is damaged byte by byte


class Hostile:
    """Whoever unpickles this leaves a file behind."""

    mark = "ran"

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def damage(rng: random.Random, root: Path, files: list[Path]) -> tuple[str, str]:
    """Damage one of `files` of `root` in place; returns (what was done, what must still hold)."""
    path = rng.choice(files)
    kinds = {".npy": NPY, ".npz": NPZ, ".csv": CSV, ".pkl": PICKLE, ".h5": HDF5}
    tricks = (shard_frames,) if ".tfrecord" in path.name else kinds.get(path.suffix, ())
    if tricks and rng.random() < 0.6:
        trick = rng.choice(tricks)
        keeps = trick(rng, path)
        return f"{trick.__name__} {path.relative_to(root)}", keeps
    trick = rng.choice(ANY)
    keeps = trick(rng, path, files)
    if path.suffix == ".csv":
        keeps = "table"
    if path.parent.parent.name == FACES and keeps == "all":
        keeps = "shape"  # nothing says how many faces there were
    return f"{trick.__name__} {path.relative_to(root)}", keeps


def replace(path: Path, content: bytes) -> None:
    """Not in place: files of a copied folder may be links to the original's."""
    path.unlink()
    path.write_bytes(content)


# ---- any file ----


def truncate(rng, path, files):
    content = path.read_bytes()
    replace(path, content[: rng.randrange(max(1, len(content)))])
    return "all"


def flip_bits(rng, path, files):
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    replace(path, bytes(content))
    return "all" if path.suffix == ".npz" else "shape"


def flip_head(rng, path, files):
    """In the first bytes, where formats have their headers."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(min(128, len(content)))] ^= 1 << rng.randrange(8)
    replace(path, bytes(content))
    return "all" if path.suffix == ".npz" else "shape"


def zero_run(rng, path, files):
    content = bytearray(path.read_bytes())
    at, length = rng.randrange(len(content) + 1), rng.randrange(1, 600)
    content[at : at + length] = bytes(len(content[at : at + length]))
    replace(path, bytes(content))
    return "all" if path.suffix == ".npz" else "shape"


def cut_run(rng, path, files):
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    replace(path, content[:at] + content[at + rng.randrange(1, 40) :])
    return "all" if path.suffix == ".npz" else "shape"


def insert_run(rng, path, files):
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    replace(path, content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:])
    return "all" if path.suffix == ".npz" else "shape"


def garbage(rng, path, files):
    replace(path, rng.randbytes(rng.choice((0, 1, 7, 100, 3000))))
    return "all"


def delete(rng, path, files):
    path.unlink()
    return "all"


def link(rng, path, files):
    target = rng.choice(("/etc/passwd", "/dev/zero", "nowhere", path.name, str(path.parent)))
    path.unlink()
    path.symlink_to(target)
    return "all"


def not_a_file(rng, path, files):
    path.unlink()
    (path.mkdir if rng.random() < 0.5 else lambda: os.mkfifo(path))()
    return "all"


def swap(rng, path, files):
    other = rng.choice(files)
    ours, theirs = path.read_bytes(), other.read_bytes()
    replace(path, theirs)
    replace(other, ours)
    return "all" if path.parent != other.parent and path.suffix == ".npz" else "ids"


def spread(rng, path, files):
    """Files that nobody asked for."""
    for name in (f"copy of {path.name}", f".{path.name}", f"{path.stem}.txt", "Ünïcode.npy"):
        (path.parent / name).write_bytes(path.read_bytes()[:MOST_BYTES])
    return "table" if path.suffix in (".pkl", ".h5") else "all"


ANY = (
    *(truncate, flip_bits, flip_head, zero_run, cut_run, insert_run, garbage, delete, link),
    *(not_a_file, swap, spread),
)


# ---- .npy ----


def _load(path):
    return np.load(path, allow_pickle=False)


def _save(path, array):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array))
    replace(path, content.getvalue())


def npy_dtype(rng, path):
    array = _load(path)
    kinds = ["O", "c16", "S5", "U3", "M8[s]", "V8", "?", [("a", "f8")], "i1", "f2"]
    kind = rng.choice(kinds)
    if kind == "O":
        objects = np.empty(array.shape, object)
        objects.fill(Hostile())
        _save(path, objects)
    elif kind in ("M8[s]", "V8") or isinstance(kind, list):
        _save(path, np.zeros(array.shape, kind))
    else:
        _save(path, array.astype(kind) if array.dtype.kind not in "SU" else np.zeros(3, kind))
    return "ids" if kind in ("?", "i1", "f2", "S5", "U3") else "all"


def npy_claim(rng, path):
    """A header with a shape of its own."""
    array = _load(path)
    shapes = [(10**12,), (2**40, 2**40), (0, 10**12), (2**63,), (1, 10**9), (10**9, 1), (0,), ()]
    shape = rng.choice([*shapes, (*array.shape, 1), (*array.shape, 2), array.shape[::-1]])
    head = {"descr": array.dtype.str, "fortran_order": rng.random() < 0.2, "shape": shape}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, head)
    replace(path, content.getvalue() + array.tobytes())
    return "ids"


def npy_reshape(rng, path):
    """Whole arrays of another shape."""
    array = _load(path)
    choices = [array[None], array[..., None], array[:-1], np.concatenate([array, array])]
    choices += [array[:0], array.reshape(-1), np.stack([array, array, array])]
    _save(path, rng.choice(choices))
    return "ids"


def npy_numbers(rng, path):
    array = _load(path).copy()
    if array.dtype.kind == "f" and array.size:
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -1, 0.5, 1e30))
    elif array.dtype.kind in "SU":
        names = ["../../x", "/etc/passwd", "", "a\0b", "zz", str(array.flat[0])]
        array = array.astype("U40")
        array.flat[rng.randrange(array.size)] = rng.choice(names)
        if rng.random() < 0.5:
            array = array.astype("S40")
    _save(path, array)
    return "shape"


def npy_same(rng, path):
    """Other bytes that say the same."""
    array = _load(path)
    if array.dtype.kind == "f" and rng.random() < 0.5:
        array = array.astype(rng.choice((">f8", "<f8", ">f4" if array.itemsize == 4 else "<f8")))
    _save(path, np.asfortranarray(array))
    return "all"


NPY = (npy_dtype, npy_claim, npy_reshape, npy_numbers, npy_same)


# ---- .npz ----


def _members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(path, members, compression=zipfile.ZIP_STORED):
    """`members`: (name, content), names may repeat."""
    path.unlink()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.writestr(info, content)


def _npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array))
    return content.getvalue()


def zip_names(rng, path):
    members = list(_members(path).items())
    name, content = rng.choice(members)
    how = rng.randrange(5)
    if how == 0:
        members.append((rng.choice(("../../evil.npy", "/evil.npy", "..\\evil.npy")), content))
    elif how == 1:
        members.append((name, rng.choice(members)[1]))  # twice
    elif how == 2:
        members.remove((name, content))
    elif how == 3:
        members[members.index((name, content))] = (name.upper(), content)
    else:
        members.append(("extra.npy", _npy(np.zeros(3))))
        _archive(path, members)
        return "all" if path.stem != "label-6way" else "table"
    _archive(path, members)
    optional = name == "utt_id.npy" or path.stem == "label-6way"
    return "table" if how in (2, 3) and optional else "all"


def zip_kinds(rng, path):
    kinds = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    _archive(path, _members(path).items(), rng.choice(kinds))
    return "all"


def zip_claims(rng, path):
    """Sizes, offsets and flags of the archive's directory."""
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    at, width = rng.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)))
    value = rng.choice((0, 1, 2**31, 2**32 - 1, rng.randrange(2**32))) % 2 ** (8 * width)
    content[directory + at : directory + at + width] = value.to_bytes(width, "little")
    replace(path, bytes(content))
    return "all"


def zip_bomb(rng, path):
    """A member with a true header and far more numbers than the archive's bytes."""
    members = _members(path)
    name = rng.choice(list(members))
    rows = rng.choice((40, 2**20))
    zeros = np.zeros((rows, 2**22 // rows), np.float32)
    members[name] = _npy(zeros)
    _archive(path, members.items(), zipfile.ZIP_DEFLATED)
    return "ids"


def zip_shell(rng, path):
    """Around the archive: bytes before it (allowed), an .npy or an archive of it instead of it."""
    content, how = path.read_bytes(), rng.randrange(3)
    if how == 0:
        replace(path, rng.randbytes(50) + content)
    elif how == 1:
        replace(path, next(iter(_members(path).values())))
    else:
        _archive(path, [("features.npy", content)])
    return "all"


def zip_member(rng, path):
    """One of the arrays, damaged like an .npy; the archive itself is whole."""
    members = _members(path)
    name = rng.choice(list(members))
    inner = path.parent / "member.npy"
    inner.write_bytes(members[name])
    try:
        trick = rng.choice(NPY)
        keeps = trick(rng, inner)
    except ValueError:  # an array of objects
        truncate(rng, inner, [])
        keeps = "all"
    members[name] = inner.read_bytes()
    inner.unlink()
    _archive(path, members.items())
    return keeps


def zip_lengths(rng, path):
    """Lengths and row names that do not fit."""
    members = _members(path)
    with np.load(path, allow_pickle=False) as archive:
        if "features" not in archive.files:
            return zip_member(rng, path)
        rows = len(archive["lengths"] if "lengths" in archive.files else archive["features"])
    lengths = np.ones(rows, np.int64)
    lengths[0] = rng.choice((0, -1, 2, 2**62, 2**63 - 1))
    names = np.array([f"u{i}" for i in range(rows)])
    names[0] = rng.choice(("u1", "zz", ""))
    odd = [lengths, lengths.astype(np.uint64), lengths * 1.0, lengths[1:], lengths[:, None]]
    if rng.random() < 0.5:
        members["lengths.npy"] = _npy(rng.choice(odd))
    else:
        members["utt_id.npy"] = _npy(rng.choice([names, names[1:], names[:, None], lengths]))
    _archive(path, members.items())
    return "ids"


NPZ = (zip_names, zip_kinds, zip_claims, zip_bomb, zip_shell, zip_member, zip_lengths)


# ---- utterances.csv ----


def csv_bytes(rng, path):
    content = path.read_bytes()
    at = rng.randrange(len(content))
    bad = (b"\xff", b"\xc3\x28", b"\0", b'"', b"\r", b",", b"\xed\xa0\x80", b"x" * 140_000)
    replace(path, content[:at] + rng.choice(bad) + content[at:])
    return "table"


def csv_encoding(rng, path):
    replace(path, path.read_bytes().decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig"))))
    return "all"


def csv_rows(rng, path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    how = rng.randrange(8)
    if how == 0:
        rows[i][0] = rows[j][0]
    elif how == 1:
        rows[i][0] = rng.choice(("", "../x", "/etc/passwd", "zz", "u" * 1000))
    elif how == 2:
        rows[i] = rows[i][: rng.randrange(len(header))]
    elif how == 3:
        del rows[i]
    elif how == 4:
        rows.append(["new", *rows[j][1:]])
    elif how == 5:
        rows[i], rows[j] = rows[j], rows[i]
    elif how == 6:
        header[rng.randrange(len(header))] = rng.choice(("utt_id", "", "label"))
    else:
        rows = []
    content = io.StringIO()
    csv.writer(content).writerows([header, *rows])
    replace(path, content.getvalue().encode())
    return "table"


CSV = (csv_bytes, csv_encoding, csv_rows)


# ---- label pickles (GCNet) ----


def pickle_same(rng, path):
    members = pickle.loads(path.read_bytes())
    replace(path, pickle.dumps(rng.choice((tuple, list))(members), rng.randrange(6)))
    return "all"


def pickle_hostile(rng, path):
    members = list(pickle.loads(path.read_bytes()))
    members[rng.randrange(len(members))] = rng.choice((Hostile(), [Hostile()], {"a": Hostile()}))
    replace(path, pickle.dumps(tuple(members), rng.randrange(6)))
    return "all"


def pickle_members(rng, path):
    """Members of other types, lengths and content."""
    members = list(pickle.loads(path.read_bytes()))
    how = rng.randrange(4)
    odd = (None, 5, "x", [], {}, {1: [2]}, {"a": "b"}, {b"a": ["b"]}, {"a"}, np.zeros(2), [[]] * 9)
    if how == 0:
        members[rng.randrange(6)] = rng.choice(odd)
    elif how == 1:
        members = members[: rng.randrange(6)] + [{}] * rng.choice((0, 0, 5))
    elif how == 2:
        members[4], members[5] = members[5], rng.choice((members[4], members[5], {"zz"}))
    else:
        video = rng.choice(sorted(members[0]))
        odd_ids = ("", "..", "../x", "/etc/passwd", "a/b", "a\0", 5, None, ["x"], "zz", 1e400)
        entries = list(members[rng.randrange(3)][video])
        table = members[rng.randrange(3)]
        entries[rng.randrange(len(entries))] = rng.choice(odd_ids)
        table[video] = entries
    replace(path, pickle.dumps(tuple(members), 4))
    return "table"


PICKLE = (pickle_same, pickle_hostile, pickle_members)


# ---- HDF5 ----


def _edit(path, change):
    content = path.read_bytes()
    replace(path, content)  # a copy that may be edited
    with h5py.File(path, "a") as file:
        change(file)


def hdf5_odd(rng, path):
    """A dataset that is of another kind, elsewhere, or not wholly stored."""

    def change(file):
        name = rng.choice(sorted(file))
        old = file[name]
        shape = old.shape if isinstance(old, h5py.Dataset) else (2, 2)
        del file[name]
        how = rng.randrange(12)
        if how == 0:
            file.create_dataset(name, (10**9, 1000), "f4", chunks=(1, 1000))
        elif how == 1:
            file.create_dataset(name, (4, 5), "f4", chunks=(1, 5))[0] = 1
        elif how == 2:
            file[name] = h5py.ExternalLink("/etc/passwd", "x")
        elif how == 3:
            file[name] = h5py.SoftLink(f"/{name}")
        elif how == 4:
            file.create_group(name)
        elif how == 5:
            file.create_dataset(name, (2, 5), "f8", external=[("/etc/passwd", 0, 80)])
        elif how == 6:
            file[name] = [["text"]]
        elif how == 7:
            file.create_dataset(name, (2,), h5py.vlen_dtype(np.float32))
        elif how == 8:
            file[name] = h5py.Empty("f4")
        elif how == 9:
            file[name] = np.zeros(shape or (1,), [("a", "f4")])
        elif how == 10:
            file.create_dataset(name, (10**12,), "S10", chunks=(1,))
        # how == 11: it stays deleted

    _edit(path, change)
    return "all"


def hdf5_numbers(rng, path):
    def change(file):
        name = rng.choice(sorted(file))
        if not isinstance(file[name], h5py.Dataset):
            return
        old = file[name][()]
        del file[name]
        odd = [old[..., None], np.zeros((3, 3)), np.zeros(0), np.zeros((0, 4)), np.float64(-1), "x"]
        if isinstance(old, np.ndarray) and old.dtype.kind == "f":
            odd += [old * np.nan, old[:-1], np.concatenate([old, old]), old[:, :-1]]
        file[name] = rng.choice(odd)

    _edit(path, change)
    return "ids"


def hdf5_same(rng, path):
    def change(file):
        name = rng.choice(sorted(file))
        old = file[name]
        if isinstance(old, h5py.Dataset) and old.ndim == 2 and old.dtype.kind == "f":
            numbers = old[()]
            del file[name]
            file.create_dataset(name, data=numbers, compression="gzip", shuffle=True)
        file["something else"] = np.zeros(3)

    _edit(path, change)
    return "all" if path.parent.name in ("A", "V", "L") else "table"


HDF5 = (hdf5_odd, hdf5_numbers, hdf5_same)


# ---- TFRecords ----


def shard_frames(rng, path):
    """A record twice, left out, or with another length."""
    content, how = path.read_bytes(), rng.randrange(3)
    (size,) = struct.unpack("<Q", content[:8])
    if how == 0:
        content = content[: 16 + size] + content
    elif how == 1:
        content = content[16 + size :]
    else:
        content = struct.pack("<Q", rng.choice((0, 2**62, size + 1))) + content[8:]
    replace(path, content)
    return "all"


def copy_tree(source: Path, target: Path) -> None:
    """A copy whose files are links to the original's: `replace` parts them."""
    shutil.copytree(source, target, copy_function=os.link)
