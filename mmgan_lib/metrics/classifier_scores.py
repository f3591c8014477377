"""Classifier-based metrics: Inception score, R-precision and classification accuracy score."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgan_lib.metrics.distance import BLOCK
from mmgan_lib.metrics.estimate import Basis, Estimate, Features, together

SAME_CAPTION = 1 - 1e-6  # captions with a cosine above this say the same


def inception_score(
    *, fake: Tensor | Features, resamples: int = 1000, generator: torch.Generator | None = None
) -> Estimate:
    r"""Computes the Inception score, high where a classifier is sure and finds many classes (Salimans et al., 2016).

    .. math:: \exp\Bigl(\frac1M \sum_j \operatorname{KL}\bigl(p(c \mid y_j) \,\Vert\, p(c)\bigr)\Bigr), \qquad
        p(c) = \frac1M \sum_j p(c \mid y_j)

    From 1, where it says the same of all, to the number of classes. No real sample enters, and one image a class that
    it is sure of has the best score. It is computed on all fakes at once: ten splits, as is common, only add bias
    (Barratt & Sharma, 2018).

    Args:
        fake: the classifier's logits, (M, K); of probabilities p, which may be 0, ``p.clamp(min=1e-30).log()``.
        resamples: of the bootstrap; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`.

    >>> round(inception_score(fake=100 * torch.eye(5)).value, 6)  # sure of each, and each another class
    5.0
    """
    (logits,), extractor = together(fake=fake)
    basis = Basis(0, len(logits), extractor, resamples, generator)
    log_share = logits.double().log_softmax(dim=1)
    share = log_share.exp()
    log_mean = share.mean(dim=0).clamp(min=torch.finfo(share.dtype).tiny).log()
    divergence = (share * log_share).sum(dim=1) - share @ log_mean
    value = divergence.mean().exp().item()
    return basis.estimate(value, value * divergence)


def r_precision(
    *,
    image: Tensor | Features,
    text: Tensor | Features,
    candidates: int = 100,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Computes the share of images that find their own caption, by cosine similarity (Xu et al., 2018).

    The caption that image i was drawn from competes with C - 1 of the :math:`M_i` captions that say something else,
    drawn without replacement. Where :math:`b_i` of these score as high or higher, it wins with probability

    .. math:: \binom{M_i - b_i}{C - 1} \Big/ \binom{M_i}{C - 1}

    and the metric is the mean of these: what drawing competitors for ever would give. Where an encoder scores different
    captions the same, nothing is won. Chance is 1 / C. (The R of the name is the number of right
    answers, here one.)

    Args:
        image: (N, D), images in the space that they share with texts.
        text: (N, D), the caption that each was drawn from.
        candidates: C, of which one is right.
        resamples: of the bootstrap over images; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`, but the extractors may be two; or another
            number of captions than images, or too few different ones.

    >>> space = torch.eye(4)
    >>> r_precision(image=space, text=space, candidates=4).value
    1.0
    >>> r_precision(image=-space, text=space, candidates=4).value
    0.0
    """
    (images,), of_image = together(image=image)
    (texts,), of_text = together(text=text)
    if images.shape != texts.shape:
        raise ValueError(f"text: found {tuple(texts.shape)}; expected {tuple(images.shape)}, one for each image.")
    extractor = of_image if of_image == of_text else f"{of_image} and {of_text}"
    basis = Basis(0, len(images), extractor, resamples, generator)
    images, texts = (F.normalize(x.double(), dim=1) for x in (images, texts))
    wins, rows = [], max(1, BLOCK // len(texts))
    for own, caption in zip(images.split(rows), texts.split(rows), strict=True):
        other = caption @ texts.T < SAME_CAPTION
        as_high = own @ texts.T >= (own * caption).sum(dim=1, keepdim=True) - (1 - SAME_CAPTION)
        wins.append(_chance_to_draw_none((other & as_high).sum(dim=1), other.sum(dim=1), candidates - 1))
    return basis.mean(torch.cat(wins))


def _chance_to_draw_none(bad: Tensor, of: Tensor, draws: int) -> Tensor:
    """Computes the probability to draw none of the bad, without replacement: a ratio of binomial coefficients."""
    if not 1 <= draws <= of.min():
        raise ValueError(
            f"candidates is {draws + 1}; expected 2 to {of.min() + 1}, as many as there are other captions."
        )
    good, of = (of - bad).double(), of.double()
    log_ratio = good.add(1).lgamma() - (good - draws + 1).lgamma() - of.add(1).lgamma() + (of - draws + 1).lgamma()
    return torch.where(good >= draws, log_ratio.exp(), 0)


def classification_accuracy_score(
    *,
    real: Tensor | Features,
    real_label: Tensor,
    fake: Tensor | Features,
    fake_label: Tensor,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Computes the accuracy on real samples of a classifier trained on fakes (CAS, Ravuri & Vinyals, 2019).

    Here the classifier is a logistic regression on standardised features. What the fakes lack of a class it cannot
    learn, so the score falls with fakes that are wrong and with fakes that are all alike. Compare it with the score of
    as many real training samples, given as ``fake``.

    Args:
        real: (N, D), samples to be told, which the generator was not trained on.
        real_label: (N,) int64, their classes.
        fake: (M, D), samples to learn from.
        fake_label: (M,) int64, the classes they were asked for.
        resamples: of the bootstrap over real samples, for the classifier as trained; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`, labels of another shape or type, or fakes of one
            class only.

    >>> real, label = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> classification_accuracy_score(real=real, real_label=label, fake=3 * real, fake_label=label).value
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (real, fake), extractor = together(real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    for name, label, x in (("real_label", real_label, real), ("fake_label", fake_label, fake)):
        if label.shape != (len(x),) or label.dtype != torch.int64:
            raise ValueError(f"{name}: found {tuple(label.shape)} {label.dtype}; expected ({len(x)},) torch.int64.")
    if (fake_label == fake_label[0]).all():
        raise ValueError(f"fake_label: found only class {fake_label[0]}; expected at least two classes to learn.")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(fake.cpu().double().numpy(), fake_label.cpu().numpy())
    told = torch.from_numpy(classifier.predict(real.cpu().double().numpy()))
    return basis.mean(told == real_label.cpu())
