"""What HARDY-MER's parts are worth: curriculum, hardness and its views, retrieval, K, α, β.

    python -m mmer_jax.main --config=configs/hardy.py --sweep=configs/sweeps/hardy_ablation.py \
        --each --workdir=workdirs/hardy_ablation --config.data.root=FEATURE_DIR

With --each every point is scored on test and compared in one report; the first is the config. k=0
is training on every pattern without a curriculum, hardness=off gives everyone all K neighbours.
"""

K, HARDNESS = "model.curriculum.k", "model.curriculum.hardness"
RETRIEVAL, BETA = "model.curriculum.retrieval", "model.curriculum.beta"
ALPHAS = ("model.curriculum.alpha_direct", "model.curriculum.alpha_indirect")


def sweep():
    yield {}
    yield {K: 0}
    for hardness in ("off", "direct", "indirect"):
        yield {HARDNESS: hardness}
    for retrieval in ("random", "features"):
        yield {RETRIEVAL: retrieval}
    for k in (1, 5):
        yield {K: k}
    for direct in (0.4, 0.5):
        yield dict(zip(ALPHAS, (direct, 1 - direct), strict=True))
    for beta in (2.0, 8.0):
        yield {BETA: beta}
