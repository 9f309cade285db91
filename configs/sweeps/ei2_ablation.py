"""What EI²'s parts contribute: the whole, and without each of them; joint score on validation.

    python -m mmer_jax.main --config=configs/ei2.py --sweep=configs/sweeps/ei2_ablation.py \
        --workdir=workdirs/ei2_ablation --config.data.root=FEATURE_DIR \
        --config.data.labels="('emotion6','dialogue_act')"

sweep.csv and the report have every point's validation scores; test scores are the best one's alone.
For those of an ablation, and for one task alone, train it into a workdir of its own
(--config.model.gate=False; --config.data.labels="('emotion6',)") and give all to mmer_jax.report.
"""


def sweep():
    yield {}
    yield {"model.history": 0}
    yield {"model.interaction": False}
    yield {"model.gate": False}
    yield {"model.second_attention": False}
    yield {"stages.ei2.init_from_pretrained": False}
