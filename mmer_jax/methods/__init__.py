"""One file per method; `METHODS` is the list of them."""

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError
from mmer_jax.methods import ifmmin, utt_fusion, utt_shared
from mmer_jax.methods.stage import Stage

METHODS = {
    "utt_fusion": utt_fusion.stages,
    "utt_shared": utt_shared.stages,
    "ifmmin": ifmmin.stages,
}


def make_stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    """The stages of `config.method` for a corpus of shapes `spec`."""
    if config.method not in METHODS:
        raise UserError(f"unknown method '{config.method}'; choose one of: {', '.join(METHODS)}")
    return METHODS[config.method](config, spec)
