"""How configs/mosei_utt_fusion.py got its values.

    python -m mmer_jax.main --config=configs/mosei_utt_fusion.py --workdir=workdirs/mosei_tuning \
        --sweep=configs/sweeps/mosei_utt_fusion.py --config.data.root=FEATURE_DIR \
        --config.data.nonfinite=missing --config.trials.seeds=2
"""

from mmer_jax.sweep import grid


def sweep():
    yield from grid(
        {
            "stages.utt_fusion.weight_decay": [0.0, 1e-2, 1e-1],
            "stages.utt_fusion.learning_rate": [2e-4, 1e-3],
        }
    )
