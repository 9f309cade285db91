"""What RAMER's retrieval is worth: no neighbours, random ones, fewer and more of them.

    python -m mmer_jax.main --config=configs/ramer.py --sweep=configs/sweeps/ramer_ablation.py \
        --each --workdir=workdirs/ramer_ablation --config.data.root=FEATURE_DIR

With --each every point is scored on test and compared in one report; the first is the config.
"""


def sweep():
    yield {}
    yield {"model.retrieval": "none"}
    yield {"model.retrieval": "random"}
    for k in (1, 3, 10):
        yield {"model.neighbours": k}
