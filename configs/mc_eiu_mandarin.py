"""EI² on MC-EIU, Mandarin, with the published training settings, on full modality.

    python -m mmer_jax.data.layouts.mc_eiu RELEASE FEATURE_DIR
    python -m mmer_jax.main --config=configs/mc_eiu_mandarin.py --workdir=workdirs/mc_eiu_mandarin \
        --config.data.root=FEATURE_DIR

As configs/mc_eiu_english.py, whose settings they share. Not run: the corpus is given on request.
"""

from configs import mc_eiu_english


def get_config():
    return mc_eiu_english.get_config()
