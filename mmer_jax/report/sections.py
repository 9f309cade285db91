"""What the report says of a group of runs, section by section; absent protocols have none."""

from collections.abc import Sequence

from mmer_jax.report import tables
from mmer_jax.report.curves import RATE_PROTOCOLS
from mmer_jax.report.document import Document, escape
from mmer_jax.report.figures.confusion import confusion_matrices, shows_counts
from mmer_jax.report.figures.curves import noise_curves, rate_curves
from mmer_jax.report.figures.neighbours import hardness_and_agreement
from mmer_jax.report.figures.pairs import pair_circles
from mmer_jax.report.figures.projection import MAX_POINTS, projection
from mmer_jax.report.figures.recall import class_recalls
from mmer_jax.report.figures.sweep import sweep_scores, swept_keys
from mmer_jax.report.figures.training import training_curves
from mmer_jax.report.merge import Group, plural, trials_text
from mmer_jax.report.scores import COLUMN_MEAN, POOLED
from mmer_jax.report.significance import compare, too_few
from mmer_jax.report.tables import Table, condition_rows
from mmer_jax.report.units import curve_metrics

NOTES = (
    "Scores in percent (MAE and correlation as they are; a lower MAE is better). ± is the standard "
    f"deviation over folds and seeds. '{POOLED}': predictions under all missing patterns taken "
    "together, then scored, per fold and seed (the average that MMIN reports; real-valued labels "
    f"have none). '{COLUMN_MEAN}': plain mean of the missing patterns' scores, per fold and seed."
)
BEST = "Bold: the best mean of a row; whether it is more than chance, see the significance tests."
BAND = (
    "Bands: 95 % t-interval of the mean over folds and seeds ({trials}). Folds share training "
    "data, so take them as a guide."
)
RATES = (
    "A nominal rate is the share of modality slots to be missing, {unit}. Every utterance keeps at "
    "least one modality, so the effective rate, the share that the masks removed, falls behind the "
    "nominal one at high rates (two thirds is the most of three modalities). All methods have the "
    "same masks; the predictions under all draws of a rate are scored together."
)
TOP_N = (
    "Neighbours are those that the method retrieves for a test utterance under a pattern, among "
    "training utterances and unlabelled ones. Top-n: the nearest n of them that have a label, "
)
AGREEMENT = TOP_N + "the share whose label is the utterance's; chance: of two test utterances."
DISTANCE = TOP_N + "the mean distance of their labels; chance: of two test utterances."
HARDNESS = (
    "The error (of classes in percent) of test utterances in four groups of equal size, by rising "
    "hardness (HARDY-MER, by the teacher) or similarity of the last neighbour (RAMER), and "
    "Spearman's rank correlation of the two; per fold and seed."
)


class GroupSections:
    """Adds the sections of one group of runs to a document."""

    def __init__(self, document: Document, group: Group, *, level: int, prefix: str):
        """`level` is that of the headings, `prefix` starts the names of the figures' files."""
        self.document, self.group, self.level, self.prefix = document, group, level, prefix
        self.methods = {name: run.scores for name, run in group.runs.items()}

    def write(self) -> None:
        self.patterns()
        for protocol in RATE_PROTOCOLS:
            self.rates(protocol)
        self.imbalanced()
        self.areas()
        self.noise()
        self.significance()
        self.confusion()
        self.pairs()
        self.neighbours()
        self.sweeps()
        self.training()
        self.projections()
        self.facts()

    # ---- scores ----

    def patterns(self) -> None:
        rows = condition_rows(self.methods, "full", "pattern")
        if rows:
            self._heading("Available modalities")
            self._tables(tables.pattern_tables(self.methods))
            self.document.paragraph(f"{NOTES} {BEST}" if len(self.methods) > 1 else NOTES)

    def rates(self, protocol: str) -> None:
        if not condition_rows(self.methods, protocol):
            return
        dialogue = protocol == "dialogue_rate"
        self._heading("Missing rates per dialogue" if dialogue else "Missing rates")
        self._tables(tables.rate_tables(self.methods, protocol))
        unit = "met by every dialogue on its own" if dialogue else "drawn for every utterance"
        self.document.paragraph(RATES.format(unit=unit))
        drawing = rate_curves(self.methods, protocol, self._curve_metrics(protocol))
        caption = f"Scores over the nominal {RATE_PROTOCOLS[protocol]}. {self._band()}"
        self._figure(f"{protocol}_curves", drawing, caption)

    def imbalanced(self) -> None:
        if condition_rows(self.methods, "imbalanced"):
            self._heading("Imbalanced missing rates")
            self._tables(tables.rate_tables(self.methods, "imbalanced"))
            self.document.paragraph(
                "Each modality has a missing rate of its own; at least one modality is kept. The "
                "effective rate is the share of modality slots that the masks removed."
            )

    def areas(self) -> None:
        table = tables.area_table(self.methods)
        if table:
            self._heading("Area under the rate curve")
            self._tables([table])
            self.document.paragraph(
                "Trapezoids over the nominal rates, divided by the range of the rates, per fold "
                "and seed: the mean height of the curve, in the metric's units."
            )

    def noise(self) -> None:
        if not condition_rows(self.methods, "noise"):
            return
        self._heading("Noise")
        self._tables(tables.noise_tables(self.methods))
        for metric in self._curve_metrics("noise"):
            drawing = noise_curves(self.methods, metric)
            caption = f"{metric} over the level of each type of noise. {self._band()}"
            self._figure(f"noise_curves-{metric}", drawing, caption)

    def significance(self) -> None:
        comparisons = compare(self.methods)
        if not comparisons:
            return
        self._heading("Significance of differences")
        self._tables([tables.significance_table(comparisons)])
        self.document.paragraph(
            "Two-sided Wilcoxon signed-rank tests on the differences per fold and seed, over the "
            "pairs that both methods have; differences in percentage points (MAE and correlation "
            "as they are). p (Holm) is adjusted over the pairs of methods, for each quantity and "
            "metric by itself. Folds share training data, so the pairs are not fully independent."
        )
        self.document.paragraph(too_few(comparisons))

    # ---- classes ----

    def confusion(self) -> None:
        counted = {n: s for n, s in self.methods.items() if tables.recall_conditions(s)}
        if not counted:
            return
        classes = self.group.classes
        self._heading("Confusion matrices")
        for name, scores in counted.items():
            counts = ", below it the number of predictions" * shows_counts(classes)
            caption = (
                f"{escape(name)}: percent of the true class{counts}, summed over "
                f"{plural(len(scores.trials()), 'trial')}."
            )
            self._figure(f"confusion-{name}", confusion_matrices(scores, classes), caption)
        self._heading("Recall per class")
        for name, scores in counted.items():
            if len(counted) > 1:
                self.document.paragraph(f"{escape(name)}:")
            self._tables([tables.recall_table(scores, classes)])
        caption = "Recall per class under every condition, mean ± standard deviation over trials."
        self._figure("class_recall", class_recalls(counted, classes), caption)

    def pairs(self) -> None:
        found = {n: run.pairs for n, run in self.group.runs.items() if run.pairs}
        for name, pairs in found.items():
            self._heading(f"{pairs.names[0]} × {pairs.names[1]}")
            caption = (
                f"{escape(name)}: which classes go together, in the labels of the data set and in "
                "the predictions of test utterances under full modality, summed over "
                f"{plural(len(self.methods[name].trials()), 'trial')}. Areas are shares of a "
                "panel; red pairs are more frequent than the two classes are by chance, blue ones "
                "less. Cramér's V is 0 where the tasks have nothing to do with each other, 1 "
                "where one says all of the other."
            )
            self._figure(f"pairs-{name}", pair_circles(pairs), caption)

    def neighbours(self) -> None:
        found = {name: run.study for name, run in self.group.runs.items() if run.study}
        if not found:
            return
        self._heading("Neighbours and hardness")
        self._tables([tables.agreement_table(found)])
        self.document.paragraph(AGREEMENT if self.group.classes else DISTANCE)
        hardness = tables.hardness_table(found)
        if hardness:
            self._tables([hardness])
            self.document.paragraph(HARDNESS)
        for name, study in found.items():
            caption = f"{escape(name)}: test utterances under each pattern, mean over trials."
            self._figure(f"neighbours-{name}", hardness_and_agreement(study), caption)

    # ---- training ----

    def sweeps(self) -> None:
        for name, run in self.group.runs.items():
            if not run.sweep:
                continue
            self._heading(f"Sweep of {name}")
            self._tables([tables.sweep_table(run.sweep, run.selected_by)])
            self.document.paragraph(
                "Best validation score of each trial, mean ± standard deviation. The chosen point "
                "is the one that is scored on the test split."
            )
            if swept_keys(run.sweep):
                drawing = sweep_scores(run.sweep, run.selected_by)
                caption = (
                    f"{escape(name)}: validation score over each swept value, mean ± standard "
                    "deviation over trials; the star is the chosen point."
                )
                self._figure(f"sweep-{name}", drawing, caption)

    def training(self) -> None:
        logged = {name: run for name, run in self.group.runs.items() if run.epochs}
        if logged:
            self._heading("Training")
        for name, run in logged.items():
            of = "the chosen point's trials" if run.sweep else "trials"
            caption = f"{escape(name)}: mean over {of}, the band is from lowest to highest."
            drawing = training_curves(run.epochs, run.selected_by)
            self._figure(f"training-{name}", drawing, caption)

    def projections(self) -> None:
        found = {n: run.invariants for n, run in self.group.runs.items() if run.invariants}
        if found:
            self._heading("Invariant features")
        for name, invariants in found.items():
            caption = (
                f"{escape(name)}: invariant features of {len(invariants.features)} utterances on "
                "the first two principal components of all of them; the same points twice. At "
                f"most {MAX_POINTS} utterances, evenly spaced, are drawn."
            )
            self._figure(f"projection-{name}", projection(invariants), caption)

    def facts(self) -> None:
        self._heading("Runs")
        self._tables([tables.runs_table(self.group)])
        for name, run in self.group.runs.items():
            if run.diverged:
                self.document.paragraph(f"{escape(name)}: training diverged in some trials.")
                self.document.bullets(dict(line.split(": ", 1) for line in run.diverged))
        facts = {
            "dataset": self.group.dataset,
            "label": self.group.label,
            "classes": self.group.outputs,
            "modalities": ", ".join(self.group.modalities),
            "splits": self.group.splits,
        }
        self.document.bullets(facts)

    # ---- helpers ----

    def _heading(self, text: str) -> None:
        self.document.heading(self.level, text)

    def _tables(self, found: Sequence[Table]) -> None:
        for table in found:
            self.document.table(table)

    def _figure(self, stem: str, drawing, caption: str) -> None:
        self.document.figure(self.prefix + stem, drawing, caption)

    def _curve_metrics(self, protocol: str) -> list[str]:
        found = [m for scores in self.methods.values() for m in scores.metrics(protocol)]
        return curve_metrics(found)

    def _band(self) -> str:
        sizes = {f"{name}: {trials_text(run.scores)}" for name, run in self.group.runs.items()}
        shared = {trials_text(run.scores) for run in self.group.runs.values()}
        if all(len(scores.trials()) == 1 for scores in self.methods.values()):
            return "One trial: no band."
        return BAND.format(trials=escape("; ".join(sorted(shared if len(shared) == 1 else sizes))))
