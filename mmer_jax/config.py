"""Every default in one place, and what makes a configuration valid.

`configs/*.py` start from `base()` and change a few lines.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict, config_dict

from mmer_jax.data.missing import condition_name, missing_patterns
from mmer_jax.data.noise import NOISES, SCHEDULES
from mmer_jax.errors import UserError


def base() -> ConfigDict:
    """The configuration that every experiment starts from; unlocked."""
    c = ConfigDict()
    c.method = "ifmmin"

    c.data = ConfigDict()
    c.data.root = ""  # the feature directory
    c.data.unlabelled = ()  # further feature directories, for retrieval databases only
    c.data.source = "records"  # records (TFRecords, built once) | directory | synthetic
    c.data.records_dir = "~/.cache/mmer_jax/records"
    c.data.modalities = ("audio", "text", "visual")  # names of the .npz files, in this order
    c.data.label = "emotion4"  # column of utterances.csv
    c.data.labels = ()  # several such columns, each a task of one model; empty: data.label
    c.data.task = "auto"  # auto | classification | regression
    c.data.classes = ()  # their order; empty: sorted. Of several labels a tuple for each
    c.data.splits = "session_speaker"  # session_speaker | session | split | kfold
    c.data.kfold = 5
    c.data.kfold_by = "speaker"  # speaker | dialogue
    c.data.kfold_seed = 0
    c.data.allow_speaker_overlap = False
    c.data.dialogues = "column"  # column (dialogue and turn) | none: each utterance is one
    c.data.normalize = "all"  # all | none | names joined by commas
    c.data.clip_std = 3.0  # normalised features lie within ± this many standard deviations; 0: off
    c.data.nonfinite = "error"  # error | missing
    c.data.shuffle_buffer = (
        0  # utterances an epoch's order is drawn among; 0: all (data/shuffle.py)
    )
    c.data.placement = "auto"  # auto | device | stream
    c.data.memory_budget_gb = 8.0  # of features on a device; `auto` streams what is larger

    c.synthetic = ConfigDict()  # for data.source = "synthetic"
    c.synthetic.n_utterances = 1000
    c.synthetic.noise = 1.0
    c.synthetic.seed = 0

    c.model = ConfigDict()
    c.model.embedding = 128
    c.model.encoders = ()  # fc | lstm | textcnn per modality; empty: by shape and name
    c.model.pooling = "maxpool"  # of LSTMs: maxpool | last | attention
    c.model.text_widths = (3, 4, 5)  # of the TextCNN's convolutions, in rising order
    c.model.classifier = (128, 128)

    c.stages = ConfigDict()

    c.train = ConfigDict()
    c.train.patterns = "all"  # all | sample (one random pattern per utterance, as published) |
    # rate | one pattern, such as audio+text: a model for it alone
    c.train.rate = config_dict.placeholder(object)
    c.train.rate = "uniform"  # for patterns=rate: a missing rate, or drawn per batch from U(0, 1)
    c.train.select = (
        ""  # of several labels the one whose UA chooses epochs; empty: their joint score
    )
    c.train.on_nonfinite = "error"  # error | drop_trial: the others go on without a diverging one
    c.train.init_from = ""  # a workdir whose parameters training starts from (fine-tuning)
    c.train.noise = "none"  # none | gaussian | impulse: what a pattern takes away is noised instead
    c.train.noise_steps = 100  # of the schedule; every batch draws one of them

    c.noise = ConfigDict()  # the schedule of noise, in training and evaluation (METHODS §4)
    c.noise.schedule = "scaled_linear"  # linear | scaled_linear | cosine | sigmoid
    c.noise.beta_start = 0.01
    c.noise.beta_end = 0.5
    c.noise.impulse_threshold = 0.7  # impulses stand where a uniform number exceeds it

    c.trials = ConfigDict()
    c.trials.folds = config_dict.placeholder(object)
    c.trials.folds = "all"  # or a list
    c.trials.seeds = 1
    c.trials.max_parallel = 0  # trials that train side by side; 0: all, on a CPU at most 10
    c.trials.heartbeat_seconds = 10.0  # of workers; silent for six of them is taken for dead

    c.eval = ConfigDict()
    c.eval.batch_size = 256
    c.eval.protocols = ("full", "pattern", "rate")  # and dialogue_rate, imbalanced, noise
    c.eval.rates = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    c.eval.imbalanced = ()  # for protocol imbalanced: ((0.1, 0.5, 0.7), ...), by modality
    c.eval.mask_draws = 5  # masks at each rate; their predictions are scored together
    c.eval.mask_seed = 0
    c.eval.noise = ("gaussian",)  # for protocol noise: and impulse
    c.eval.noise_levels = (20, 40, 60, 80, 100)  # steps of the schedule
    c.eval.study = "test"  # whose hardness and neighbours hardness.csv has: test | all | none

    c.quirks = ConfigDict()
    c.quirks.pad_masking = True  # False: recurrence and pooling run over padding, as released

    add_run_sections(c)
    return c


def add_run_sections(c: ConfigDict) -> None:
    """How a run is carried out, whatever it trains."""
    c.mesh = ConfigDict()
    c.mesh.devices = 0  # how many of the devices to use; 0: all
    c.mesh.data = 0  # devices that share a batch; 0: chosen

    c.checkpoint = ConfigDict()
    c.checkpoint.every_seconds = 60.0  # 0: after every epoch
    c.checkpoint.grace_seconds = 15.0  # how long a signal waits for the end of an epoch

    c.log = ConfigDict()
    c.log.tensorboard = False


def stage(**changes) -> ConfigDict:
    """Settings of one training stage; defaults as in the released launch scripts."""
    s = ConfigDict()
    s.batch_size = 128
    s.constant_epochs = 10
    s.decay_epochs = 10
    s.learning_rate = 2e-4
    s.b1 = 0.9
    s.weight_decay = 0.0
    s.clip = 1.0  # of each network's gradient norm
    s.dropout = 0.5  # of classifiers
    s.encoder_dropout = 0.5  # of TextCNN and FC encoders
    s.update(changes)
    return s


def is_hyper(name: str) -> bool:
    """Whether a stage's setting may differ between trials of one compiled program."""
    return name == "learning_rate" or name.endswith(("dropout", "_weight"))


# Keys that change how a run is carried out, how many trials it has or how it is scored, but not
# what a trial is: a workdir may be resumed under other values.
INCIDENTAL = (
    "data.placement",
    "data.memory_budget_gb",
    "data.records_dir",
    "data.source",
    "data.root",
    "data.unlabelled",  # their content stands in config.json
    "checkpoint.every_seconds",
    "checkpoint.grace_seconds",
    "eval.protocols",
    "eval.rates",
    "eval.imbalanced",
    "eval.mask_draws",
    "eval.mask_seed",
    "eval.noise",
    "eval.noise_levels",
    "eval.study",
    "train.on_nonfinite",  # a stopped run may go on without the trial that stopped it
    "trials.folds",
    "trials.seeds",
    "trials.max_parallel",
    "trials.heartbeat_seconds",
    "log.tensorboard",
    "mesh.data",
    "mesh.devices",
)


def label_columns(config: ConfigDict) -> tuple[str, ...]:
    """The columns of utterances.csv that are predicted, one per task."""
    return tuple(config.data.labels) or (config.data.label,)


def flat(config: ConfigDict) -> dict[str, object]:
    """{'data.label': 'emotion4', ...} with plain JSON values."""
    found: dict[str, object] = {}

    def visit(prefix: str, node) -> None:
        for key, value in node.items():
            if isinstance(value, ConfigDict):
                visit(f"{prefix}{key}.", value)
            else:
                found[f"{prefix}{key}"] = json.loads(json.dumps(value))

    visit("", config)
    return found


def from_flat(
    values: Mapping[str, object], defaults: Callable[[], ConfigDict] = base
) -> ConfigDict:
    """The configuration that `flat` made `values` of; keys they lack have their `defaults`."""
    c = defaults()
    for key, value in values.items():
        *sections, name = key.split(".")
        section = c
        for part in sections:
            if part not in section:
                section[part] = ConfigDict()
            section = section[part]
        with section.ignore_type():  # JSON does not tell 1.0 from 1
            section[name] = _tuples(value)
    return c.lock()


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def assign(config: ConfigDict, key: str, value) -> None:
    """Set a dotted key of a locked configuration."""
    *sections, name = key.split(".")
    for part in sections:
        config = config[part]
    with config.unlocked():
        config[name] = value


def check_overrides(config: ConfigDict, overrides) -> None:
    """Refuse `--config.a.b` that the config file does not define, listing what it does.

    Args:
      config: as the config file returns it.
      overrides: dotted keys.
    """
    valid = flat(config)
    for key in overrides:
        if key not in valid:
            section = key.rsplit(".", 1)[0] + "."
            near = [k for k in valid if k.startswith(section)] if "." in key else []
            raise UserError(
                f"unknown config key '{key}'; valid keys are: {', '.join(near or sorted(valid))}"
            )


def _pattern_names(modalities: Sequence[str]) -> list[str]:
    return [condition_name(pattern, modalities) for pattern in missing_patterns(len(modalities))]


def check_values(config: ConfigDict) -> None:
    """Refuse values that no part of the program would understand."""
    choices = {
        "data.source": ("records", "directory", "synthetic"),
        "data.placement": ("auto", "device", "stream"),
        "data.task": ("auto", "classification", "regression"),
        "data.dialogues": ("column", "none"),
        "train.patterns": ("all", "sample", "rate", *_pattern_names(config.data.modalities)),
        "train.noise": ("none", *NOISES),
        "train.on_nonfinite": ("error", "drop_trial"),
        "eval.study": ("test", "all", "none"),
        "noise.schedule": SCHEDULES,
        "model.pooling": ("maxpool", "last", "attention"),
        "model.retrieval": ("nearest", "random", "none"),
        "model.backward_cascade": ("own", "shared", "none"),
        "quirks.cascade_init": ("scaled", "kaiming"),
        "quirks.attention": ("modalities", "batch"),
        "quirks.kl": ("mean", "sum"),
        "quirks.curriculum_labels": ("own", "query"),
        "model.curriculum.retrieval": ("encodings", "features", "random"),
        "model.curriculum.hardness": ("both", "direct", "indirect", "off"),
        "quirks.latent": ("mean", "sample"),
    }
    values = flat(config)
    for key, allowed in choices.items():
        if key in values and values[key] not in allowed:
            raise UserError(f"{key} is '{values[key]}'; choose one of: {', '.join(allowed)}")
    bounds = {
        "trials.seeds": 1,
        "trials.max_parallel": 0,
        "trials.heartbeat_seconds": 0.1,
        "eval.batch_size": 1,
        "eval.mask_draws": 1,
        "train.noise_steps": 1,
        "model.embedding": 1,
        "mesh.devices": 0,
        "mesh.data": 0,
        "data.clip_std": 0,
        "data.kfold_seed": 0,
        "data.shuffle_buffer": 0,
        "data.memory_budget_gb": 0,
        "synthetic.seed": 0,
        "synthetic.n_utterances": 1,
        "checkpoint.every_seconds": 0,
        "checkpoint.grace_seconds": 0,
        "model.blocks": 1,
        "model.neighbours": 1,
        "model.transformer.layers": 1,
        "model.transformer.heads": 1,
        "model.transformer.feedforward": 1,
        "model.history": 0,
        "model.context_layers": 1,
        "model.feedforward": 1,
        "model.heads": 1,
        "model.depth": 1,
        "model.decoder": 1,
        "model.curriculum.k": 0,
    }
    for key, least in bounds.items():
        if key in values and values[key] < least:  # type: ignore[operator]
            raise UserError(f"{key} is {values[key]}; it must be at least {least}")
    heads = values.get("model.transformer.heads", 1)
    if values["model.embedding"] % heads:  # type: ignore[operator]
        raise UserError(
            f"model.embedding is {values['model.embedding']}; expected a multiple of "
            f"model.transformer.heads, {heads}"
        )
    rates = values["eval.rates"]
    if len(set(rates)) < len(rates) or any(f"{r:.1f}" != f"{r:g}" and r % 1 for r in rates):  # type: ignore
        raise UserError(f"eval.rates is {rates}; expected different rates of one decimal")
    columns = label_columns(config)
    if config.train.select and (len(columns) < 2 or config.train.select not in columns):
        raise UserError(
            f"train.select is '{config.train.select}'; expected one of data.labels, "
            f"{', '.join(config.data.labels) or 'of which there are none'}, or nothing"
        )
    if "://" in str(values["data.records_dir"]):
        raise UserError(
            f"data.records_dir is {values['data.records_dir']}; records are read over and over, so "
            "they are kept on this machine or a shared file system: give a folder"
        )
    rate = values["train.rate"]
    if rate != "uniform" and not (isinstance(rate, int | float) and 0 <= rate <= 1):
        raise UserError(f"train.rate is {rate!r}; expected 'uniform' or a rate from 0 to 1")
    for key in ("model.classifier", "model.cascade", "model.text_widths"):
        sizes = values.get(key, [1])
        if not sizes or not all(isinstance(s, int) and s > 0 for s in sizes):  # type: ignore
            raise UserError(f"{key} is {sizes}; expected layer sizes such as (128, 128)")
    widths = values["model.text_widths"]
    if sorted(set(widths)) != widths:  # type: ignore[arg-type, call-overload]
        raise UserError(f"model.text_widths is {widths}; expected different widths in rising order")
    for name, settings in config.stages.items():
        for key, low, high in (
            ("batch_size", 1, None),
            ("constant_epochs", 0, None),
            ("decay_epochs", 0, None),
            ("b1", 0, 1),
            ("weight_decay", 0, None),
            ("learning_rate", 0, None),
            ("clip", 0, None),
            ("refresh_epochs", 0, None),
            *((key, 0, 1) for key in settings if key.endswith("dropout")),
            *((key, 0, None) for key in settings if key == "focus"),
        ):
            value = settings.get(key, 0)
            if value < low or (high is not None and value >= high):
                below = "" if high is None else f" and below {high}"
                raise UserError(f"stages.{name}.{key} is {value}; expected at least {low}{below}")
        if settings.get("patterns", "missing") not in ("missing", "full"):
            raise UserError(
                f"stages.{name}.patterns is '{settings.patterns}'; choose one of: missing, full"
            )
        if settings.constant_epochs + settings.decay_epochs < 1:
            raise UserError(f"stages.{name} has no epoch")
