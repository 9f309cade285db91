"""Posteriors of an external recogniser (Kaldi, wav2vec2, ...): one .npz for each utterance.

    log_posteriors  [G, S] natural logarithms, each frame's probabilities adding up to 1
    symbols         [S] strings: ARPAbet, with or without stress and Kaldi's position endings;
                    silence as SIL, sil, sp or spn; the blank of CTC as <blank>, <blk>, <pad> or
                    <eps>; others (<unk>, |) do not count
    frame_shift     seconds from frame to frame

Symbols of the same phone (AA0, AA1_B) are added up.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmer_jax.data import arrays
from mmer_jax.errors import UserError, shorten
from mmer_jax.speech.phones import BLANK, INDEX, N_SYMBOLS, SIL, without_stress

BLANKS = ("<blank>", "<blk>", "<pad>", "<eps>")
SILENCES = ("SIL", "sil", "sp", "spn", "SPN")
KEYS = ("log_posteriors", "symbols", "frame_shift")
TOLERANCE = 0.02  # by which a frame's probabilities may miss 1


class Posteriors(NamedTuple):
    """Log posteriors over our symbols."""

    values: np.ndarray  # [G, 41]
    frame_shift: float  # seconds


def read_posteriors(path: Path) -> Posteriors:
    """What a file holds, over `phones.PHONES`.

    Raises:
      UserError: the file is faulty, or its symbols are not phones.
    """
    try:
        found = arrays.read_npz(path)
    except arrays.BadArray as error:
        raise UserError(f"{path} {error}; expected an .npz with {', '.join(KEYS)}") from None
    missing = [key for key in KEYS if key not in found]
    if missing:
        raise UserError(f"{path} has no array '{missing[0]}', only: {', '.join(found)}")
    values, symbols, shift = (found[key] for key in KEYS)
    for key in ("log_posteriors", "frame_shift"):
        if found[key].dtype.kind not in "iuf":
            raise UserError(f"{path}: {key} holds {found[key].dtype}; expected numbers")
    if values.ndim != 2 or symbols.ndim != 1 or len(symbols) != values.shape[1] or not len(values):
        raise UserError(
            f"{path}: log_posteriors are {list(values.shape)} and symbols {list(symbols.shape)}; "
            "expected [G, S] and [S]"
        )
    if shift.size != 1 or not 0 < float(shift.reshape(())) < 1:
        raise UserError(f"{path}: frame_shift is {shift.tolist()}; expected seconds, such as 0.01")
    values = values.astype(np.float64)
    total = np.exp(values).sum(axis=1)
    if not (np.abs(total - 1) < TOLERANCE).all():
        frame = int(np.argmax(~(np.abs(total - 1) < TOLERANCE)))
        raise UserError(
            f"{path}: the probabilities of frame {frame} add up to {total[frame]:.4g}, expected 1; "
            "log_posteriors are natural logarithms after softmax"
        )
    return Posteriors(_merged(values, [str(s) for s in symbols], path), float(shift.reshape(())))


def _merged(values: np.ndarray, symbols: list[str], path: Path) -> np.ndarray:
    probability = np.zeros((len(values), N_SYMBOLS))
    known = 0
    for column, symbol in enumerate(symbols):
        name = without_stress(symbol)
        if symbol in BLANKS:
            place = BLANK
        elif symbol.split("_")[0] in SILENCES:
            place = SIL
        elif name in INDEX:
            place = INDEX[name]
            known += 1
        else:
            continue
        probability[:, place] += np.exp(values[:, column])
    if not known:
        raise UserError(f"{path}: no symbol is an ARPAbet phone: {shorten(symbols)}")
    return np.log(np.maximum(probability, 1e-30)).astype(np.float32)
