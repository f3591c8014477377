"""The evaluation card: one page of metrics of a generator, with what is needed to measure the same again."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import torch

from mmgan_lib import runtime
from mmgan_lib.metrics.distance import frechet_distance, kernel_distance
from mmgan_lib.metrics.estimate import Estimate, Features
from mmgan_lib.metrics.nearest_neighbours import density_coverage, memorisation, pairwise_diversity, precision_recall


@dataclass(frozen=True)
class EvaluationCard:
    """The result of :func:`evaluation_card`; a notebook shows it as a table.

    Attributes:
        title: which generator.
        scores: name of a metric → its score for the fakes, and for real samples in their place where that makes sense.
        facts: what made the generator, the samples and the features.
    """

    title: str
    scores: Mapping[str, tuple[Estimate, Estimate | None]]
    facts: Mapping[str, str]

    def __repr__(self) -> str:
        rows = [f"{name:<24} {_brief(fake):<28} {_brief(real)}" for name, (fake, real) in self.scores.items()]
        head = f"{'':<24} {'fakes':<28} real in their place"
        facts = [f"{name:<24} {value}" for name, value in self.facts.items()]
        return "\n".join([self.title, head, *rows, *facts])

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{escape(name)}</td><td>{_brief(fake)}</td><td>{_brief(real)}</td></tr>"
            for name, (fake, real) in self.scores.items()
        ]
        facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts.items()]
        head = "<tr><th></th><th>fakes</th><th>real in their place</th></tr>"
        return (
            f'<div style="overflow-wrap: anywhere"><strong>{escape(self.title)}</strong><table class="table">'
            f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table><dl>{''.join(facts)}</dl></div>"
        )


def evaluation_card(
    title: str,
    *,
    train: Features,
    real: Features,
    fake: Features,
    made: Mapping[str, Any],
    more: Mapping[str, Estimate] | None = None,
    seed: int = 0,
) -> EvaluationCard:
    """Measures a generator in all the ways that need features alone, beside what real samples reach in its place.

    For the right-hand column the held-out samples are split in two, and one half stands in for the fakes. Distances
    grow as samples get fewer, so the fakes are compared at the same number: the first N of them, N half the number of
    held-out samples, against the other half.

    Args:
        title: which generator, and on what data.
        train: (T, D), what the generator was trained on, or a part of it.
        real: (2N, D), samples that it was not trained on.
        fake: (M, D), what it draws, M at least N.
        made: the entry of the manifest, as :func:`mmgan_lib.checkpoint.load_pretrained` returns it.
        more: further scores of the fakes, such as those of :func:`~mmgan_lib.metrics.caption_accuracy`.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer fakes than half of the real samples, or features that do not go together.
    """
    n = len(real) // 2
    if len(fake) < n:
        raise ValueError(f"fake: found {len(fake)} samples; expected at least {n}, half of the real ones.")
    ours, theirs = (_measure(train, real[:n], x[:n], seed) for x in (fake, real[n:]))
    scores = {name: (ours[name], theirs[name]) for name in ours}
    scores |= {name: (score, None) for name, score in (more or {}).items()}
    facts = {
        "generator made by": f"{made['command']}, seed {made['seed']}, {made['tier']} tier, {made['seconds']:.0f} s "
        f"on {made['device']}",
        "its weights": f"sha256 {made['sha256']}",
        "samples": f"{n:,} fakes and {n:,} held-out real ones; {len(train):,} of the training set",
        "features": f"{real.extractor}, {real.vectors.shape[1]} numbers",
        "intervals": f"95%, bootstrap, seed {seed}; of shares as asked, Wilson's",
        "measured with": f"torch {torch.__version__}, Python {platform.python_version()}, {runtime.processor()}",
    }
    return EvaluationCard(title, scores, facts)


def _measure(train: Features, real: Features, fake: Features, seed: int) -> dict[str, Estimate]:
    draw = {"generator": torch.Generator().manual_seed(seed)}
    near, crowd = precision_recall(real=real, fake=fake, **draw), density_coverage(real=real, fake=fake, **draw)
    return {
        "Fréchet distance": frechet_distance(real=real, fake=fake, **draw),
        "kernel distance": kernel_distance(real=real, fake=fake, subset_size=min(1000, len(real)), **draw),
        "precision": near.precision,
        "recall": near.recall,
        "density": crowd.density,
        "coverage": crowd.coverage,
        "memorisation": memorisation(train=train, real=real, fake=fake, **draw),
        "diversity": pairwise_diversity(fake=fake, **draw),
    }


def _brief(score: Estimate | None) -> str:
    return "" if score is None else f"{score.value:.4g} ({score.low:.4g} to {score.high:.4g})"
