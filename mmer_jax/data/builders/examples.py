"""Where the features of an utterance lie inside its record, a serialized `tf.train.Example`.

An Example is a map from names to lists of bytes, in the wire format of protocol buffers: fields one
after the other, each with its number and its length. Walking over them finds the bytes without
copying any.

References:
  https://protobuf.dev/programming-guides/encoding/ (varints, length-delimited fields).
"""

from collections.abc import Iterator

Span = tuple[int, int]  # start, end

LENGTH_DELIMITED = 2  # the wire type of everything that leads to a list of bytes
FEATURES, FEATURE = 1, 1  # Example.features, Features.feature
KEY, VALUE = 1, 2  # of a map's entry
BYTES_LIST, BYTES = 1, 1  # Feature.bytes_list, BytesList.value


def locate(record: bytes) -> dict[str, tuple[int, int]]:
    """(start, size) of every feature that is a list of one bytes value, by its name.

    Raises:
      ValueError: this is no Example.
    """
    found = {}
    for features in _fields(record, (0, len(record)), FEATURES):
        for entry in _fields(record, features, FEATURE):
            for key in _fields(record, entry, KEY):
                values = _values(record, entry)
                if len(values) == 1:
                    found[record[slice(*key)].decode()] = values[0]
    return {name: (start, end - start) for name, (start, end) in found.items()}


def _values(record: bytes, entry: Span) -> list[Span]:
    """Every bytes value of one entry of the map."""
    return [
        value
        for feature in _fields(record, entry, VALUE)
        for values in _fields(record, feature, BYTES_LIST)
        for value in _fields(record, values, BYTES)
    ]


def _fields(record: bytes, span: Span, wanted: int) -> Iterator[Span]:
    """What the fields of the number `wanted` hold."""
    start, end = span
    while start < end:
        tag, start = _varint(record, start, end)
        if tag & 7 != LENGTH_DELIMITED:
            raise ValueError(f"a field of wire type {tag & 7} at byte {start}")
        size, start = _varint(record, start, end)
        if start + size > end:
            raise ValueError(f"a field of {size} bytes at byte {start}, where {end - start} are")
        if tag >> 3 == wanted:
            yield start, start + size
        start += size


def _varint(record: bytes, start: int, end: int) -> tuple[int, int]:
    """(the number that begins at `start`, where it ends): 7 bits a byte, the lowest first."""
    value = 0
    for place, byte in enumerate(record[start : min(end, start + 10)]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, start + place + 1
    raise ValueError(f"an unfinished number at byte {start}")
