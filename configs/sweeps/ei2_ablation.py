"""What EI²'s parts contribute: the whole, and without each of them.

    python -m mmer_jax.main --config=configs/ei2.py --sweep=configs/sweeps/ei2_ablation.py \
        --each --workdir=workdirs/ei2_ablation --config.data.root=FEATURE_DIR \
        --config.data.labels="('emotion6','dialogue_act')"

With --each every point is scored on test and compared in one report; the first is the config. One
task alone has other labels, so it is a run of its own, --config.data.labels="('emotion6',)";
`python -m mmer_jax.report` shows it beside the others in that task's part.
"""


def sweep():
    yield {}
    yield {"model.history": 0}
    yield {"model.interaction": False}
    yield {"model.gate": False}
    yield {"model.second_attention": False}
    yield {"stages.ei2.init_from_pretrained": False}
