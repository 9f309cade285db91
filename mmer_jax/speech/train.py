"""python -m mmer_jax.speech.train --config=configs/l1_recogniser.py --workdir=DIR

Trains a model of the speech part; --config.section.key=value overrides a setting. The same command
on the same workdir goes on where it stopped.
"""

from absl import app

from mmer_jax import main as engine
from mmer_jax.errors import UserError
from mmer_jax.speech.training import train


def main(argv: list[str]) -> None:
    del argv

    def command(workdir, console) -> None:
        if engine.SWEEP.value or engine.EACH.value:
            raise UserError("the speech part has no sweeps; give a --config for each run")
        train(engine.CONFIG.value, workdir, console)

    engine.guarded(command)


if __name__ == "__main__":
    app.run(main, flags_parser=engine.parse_flags)
