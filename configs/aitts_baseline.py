"""The control that Ai-TTS is compared with: the weight of a speaker-adversarial loss.

python -m mmer_jax.speech.train --config=configs/aitts_baseline.py --workdir=workdirs/baseline \
    --config.data.recogniser=workdirs/l1

The same network and corpus, but its phones are told the weight of the reversed gradient in place of
the intensity, and no term speaks of intensities (mmer_jax/speech/adversary.py).
17 minutes on one core; Spearman 0.03.
"""

from configs import aitts


def get_config():
    c = aitts.get_config()
    with c.unlocked():
        c.model.control = "adversarial"
    return c.lock()
