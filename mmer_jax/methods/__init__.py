"""One file per method; `METHODS` is the list of them."""

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.errors import UserError
from mmer_jax.methods import (
    augmentation,
    ei2,
    hardy,
    ifmmin,
    mmin,
    nmer,
    ramer,
    utt_fusion,
    utt_shared,
)
from mmer_jax.methods.stage import Stage

METHODS = {
    "utt_fusion": utt_fusion.stages,
    "utt_shared": utt_shared.stages,
    "augmentation": augmentation.stages,
    "mmin": mmin.stages,
    "ifmmin": ifmmin.stages,
    "nmer": nmer.stages,
    "ramer": ramer.stages,
    "hardy": hardy.stages,
    "ei2": ei2.stages,
}

# What a method's config must hold beside the base configuration.
NEEDS = {
    "utt_fusion": ("stages.utt_fusion",),
    "utt_shared": ("stages.utt_shared",),
    "augmentation": ("stages.utt_fusion", "stages.augmentation"),
    "mmin": (
        "stages.utt_fusion",
        "stages.mmin",
        "model.cascade",
        "model.blocks",
        "model.backward_cascade",
        "quirks.cascade_init",
    ),
    "nmer": (
        "stages.nmer_teacher",
        "stages.nmer",
        "model.vae",
        "quirks.attention",
        "quirks.kl",
        "quirks.latent",
    ),
    "hardy": (
        "stages.hardy_unimodal",
        "stages.hardy_teacher",
        "stages.hardy",
        "model.heads",
        "model.depth",
        "model.decoder",
        "model.curriculum",
        "quirks.curriculum_labels",
    ),
    "ifmmin": ("stages.utt_shared", "stages.ifmmin", "model.cascade", "model.blocks"),
    "ramer": (
        "stages.ramer_base",
        "stages.ramer",
        "model.transformer",
        "model.retrieval",
        "model.neighbours",
        "quirks.drop_first",
        "quirks.normalize_query",
    ),
    "ei2": (
        "stages.ei2_pretrain",
        "stages.ei2",
        "model.history",
        "model.history_missing",
        "model.context_layers",
        "model.fusion_heads",
        "model.feedforward",
        "model.interaction",
        "model.interaction_heads",
        "model.second_attention",
        "model.gate",
        "model.imagination",
        "model.cascade",
        "model.blocks",
    ),
}


def make_stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    """The stages of `config.method` for a corpus of shapes `spec`."""
    if config.method not in METHODS:
        raise UserError(f"unknown method '{config.method}'; choose one of: {', '.join(METHODS)}")
    for key in NEEDS[config.method]:
        section, name = key.split(".")
        if name not in config[section]:
            raise UserError(
                f"method '{config.method}' needs '{key}', which this config file does not define; "
                f"use --config=configs/{config.method}.py"
            )
    return METHODS[config.method](config, spec)
