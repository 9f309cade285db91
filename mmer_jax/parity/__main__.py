"""python -m mmer_jax.parity FILE...: hold our numbers against the originals' reference values.

A file holds inputs, weights and outputs of one released PyTorch network or model, with all sizes in
`meta`. One line per quantity gives the largest absolute difference and its tolerance; the exit
status is 1 if any exceeds it, 2 if a file cannot be read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from mmer_jax import cli
from mmer_jax.errors import UserError
from mmer_jax.parity import ei2, hardy, models, parts, reference, retrieval

COMPARISONS = {
    "cmd": parts.compare_cmd,
    "encoders": parts.compare_encoders,
    "nmer_noise": parts.compare_nmer_noise,
    "nmer_vae_encoder": parts.compare_nmer_vae_encoder,
    "utt_fusion": models.compare_utt_fusion,
    "utt_shared": models.compare_utt_shared,
    "mmin": models.compare_mmin,
    "ifmmin": models.compare_ifmmin,
    "ramer_retrieval": retrieval.compare_ramer_retrieval,
    "hardy_student": hardy.compare_student,
    "hardy_teacher": hardy.compare_teacher,
    "hardy_retrieval": hardy.compare_retrieval,
    "ei2": ei2.compare_ei2,
}


def compare(path: Path) -> list[reference.Difference]:
    """All quantities of one file."""
    meta, arrays = reference.read(path)
    model = meta.get("model")
    if model not in COMPARISONS:
        raise UserError(f"{path} holds model '{model}'; known are: {', '.join(COMPARISONS)}")
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 on GPUs
    return list(COMPARISONS[model](meta, arrays))


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m mmer_jax.parity",
        description="Hold our numbers against the originals' reference values.",
    )
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args(argv)
    return cli.exit_status(lambda: show(args.files))


def show(paths: Sequence[Path]) -> int:
    """Print the comparisons of all files; 1 if a quantity differs by more than its tolerance."""
    failed = 0
    for path in paths:
        for d in compare(path):
            verdict = "ok" if d.ok else "FAIL"
            print(f"{verdict:4} {path.name:18} {d.quantity:36} {d.largest:.2e} ≤ {d.tolerance:.1e}")
            failed += not d.ok
    if failed:
        print(f"{failed} quantities differ by more than their tolerance", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
