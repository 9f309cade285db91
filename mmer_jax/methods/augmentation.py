"""Plain data augmentation: utt_fusion trained on missing patterns, nothing imagined.

The control that every treatment of missing modalities has to beat (METHODS §2). It starts from
utt_fusion's best epoch, as the students of MMIN and IF-MMIN start from their teachers, so that it
has seen as many epochs as they have. stages.augmentation.init_from_teacher=False starts afresh,
without the first stage.
"""

from mmer_jax.data.corpus import CorpusSpec
from mmer_jax.methods import utt_fusion
from mmer_jax.methods.stage import Stage
from mmer_jax.methods.utt_fusion import UttFusion


def stages(config, spec: CorpusSpec) -> tuple[Stage, ...]:
    model, settings = UttFusion(config, spec), config.stages.augmentation
    first = utt_fusion.stages(config, spec) if settings.init_from_teacher else ()

    def init(key, earlier):
        fresh = model.init(key, earlier)
        return earlier["utt_fusion"] if first else fresh

    stage = Stage(
        name="augmentation",
        settings=settings,
        patterns="missing",
        init=init,
        loss=model.loss,
        predict=model.predict,
    )
    return *first, stage
