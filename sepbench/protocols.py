"""The contracts of sepbench: read this file first.

A benchmark run is a pipeline of frozen things: data -> mixture set -> separator -> estimates -> scores -> leaderboard.
Metrics have a file of their own, ``metrics/kinds.py``. Shapes and ranges, everywhere in the project:

==================  ======================  ===========================================
images              ``(B, C, H, W)``        float32 in [0, 1]
audio               ``(B, channels, T)``    float32
vectors             ``(B, D)``              float32
sources, estimates  ``(B, K, ...)``         K sources, each shaped like one signal
posterior samples   ``(B, N, K, ...)``      N draws of all K sources
mixtures            ``(B, ...)``            the suite's operator applied to the sources
==================  ======================  ===========================================

Nothing here imports torch at run time, so ``import sepbench.protocols`` stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from sepbench.noise import NoiseSource

Domain = Literal["image", "audio", "vector"]
Supervision = Literal["blind", "mixtures+one", "sources", "prior", "bound"]
Assignment = Literal["permutation", "ordered"]
Budget = Literal["quick", "paper"]

SUPERVISION_LEVELS: Mapping[str, str] = {
    "blind": "nothing: no training data at all",
    "mixtures+one": "training mixtures, and clean samples of one class (NES, GLOM, AM, semi-supervised NMF)",
    "sources": "clean samples of every class (supervised regression, NMF)",
    "prior": "clean samples without classes, one unconditional model (BASIS, S-D, LASS)",
    "bound": "the references themselves: oracle rows, never ranked",
}


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What a separator says of itself. Every row of a leaderboard repeats it.

    Attributes:
        name: registry key, short and lower-case (``basis-ncsn``).
        title: the name the paper uses.
        version: raised whenever the method's numbers may change.
        domains: the signals it can separate.
        supervision: what it may learn from, see ``SUPERVISION_LEVELS``.
        paper: author, year and equation or algorithm number.
        deterministic: True if the estimates do not depend on the seed.
        bound: ``lower`` or ``upper`` for reference rows that are not methods of separation; never ranked.
        max_batch: the most mixtures that one call of ``separate`` gets. ``max_batch_cpu`` is the same on a CPU; None: as on other devices. A kill
            loses the call that runs, so a call on a CPU should take at most a minute.
    """

    name: str
    title: str
    version: str
    domains: frozenset[Domain]
    supervision: Supervision
    paper: str
    deterministic: bool
    bound: Literal["", "lower", "upper"] = ""
    max_batch: int = 500
    max_batch_cpu: int | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a separator may know of a task before it sees a mixture.

    Attributes:
        suite, name: the task's address.
        domain: image, audio or vector.
        n_sources: K.
        source_shape: shape of one source, ``(C, H, W)``, ``(channels, T)`` or ``(D,)``.
        operator: name of the mixing operator: ``sum``, ``mean``, ``channel-mean`` or ``gain``.
        source_classes: one class name per source slot; all are equal if the task is class-agnostic.
        assignment: ``ordered`` if estimate k must be source k, ``permutation`` if the best assignment counts.
        scored_sources: the slots that metrics are computed for (NES scores only X).
        observed_source: the slot whose clean samples a method of level ``mixtures+one`` gets, or None.
        sample_rate: samples per second for audio, else None.
        datasets: name of the data set behind each source slot. It lets a method find a prior that was trained on its training split.
        analytic_prior: True if every source's distribution is known in closed form. ``TrainingView.prior`` then returns it.
        posterior_draws: N, if the suite scores N posterior draws per mixture (of ``PosteriorSampler.sample``) instead of estimates; else 0.
        padding: zero pixels that the suite adds on all four sides of an image; ``source_shape`` includes them. A prior of the images without them fits.
    """

    suite: str
    name: str
    domain: Domain
    n_sources: int
    source_shape: tuple[int, ...]
    operator: str
    source_classes: tuple[str, ...]
    assignment: Assignment
    scored_sources: tuple[int, ...]
    observed_source: int | None = None
    sample_rate: int | None = None
    datasets: tuple[str, ...] = ()
    analytic_prior: bool = False
    posterior_draws: int = 0
    padding: int = 0

    @property
    def class_agnostic(self) -> bool:
        """True if every source slot draws from the same class."""
        return len(set(self.source_classes)) == 1

    @property
    def unpadded_shape(self) -> tuple[int, ...]:
        """Shape of one source as the data set has it, without the zeros of ``padding``."""
        if not self.padding:
            return self.source_shape
        *channels, height, width = self.source_shape
        return (*channels, height - 2 * self.padding, width - 2 * self.padding)


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a method can take a task. If not, ``note`` is the reason. If so, it may be a caveat, which is shown."""

    ok: bool
    note: str = ""


class MixingOperator(Protocol):
    """``forward: (B, K, ...) -> (B, ...)``, linear."""

    @property
    def name(self) -> str: ...

    @property
    def n_sources(self) -> int: ...

    def matrix(self) -> torch.Tensor:
        """``A``: ``(1, n)`` float64, or ``(B, 1, n)`` if it differs between examples."""

    def gram(self) -> torch.Tensor:
        """``A A^T``: ``()`` or ``(B,)`` float64, the squared norm of the row. It bounds the step sizes of every gradient method."""

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        """Sources ``(B, K, ...)`` to mixtures ``(B, ...)``."""

    def adjoint(self, mixtures: torch.Tensor) -> torch.Tensor:
        """``A^T m``: mixtures ``(B, ...)`` to ``(B, K, ...)``, with <A x, m> = <x, A^T m>."""

    def pseudo_inverse(self, mixtures: torch.Tensor) -> torch.Tensor:
        """``A^T (A A^T)^-1 m``: the sources of least norm that explain the mixture exactly."""

    def output_range(self, low: float, high: float) -> tuple[float, float]:
        """Range of the mixture for sources in [low, high]."""

    def select(self, rows: torch.Tensor) -> MixingOperator:
        """The operator of a subset of the batch (int64 positions). It is the operator itself if all examples share one matrix."""

    def to(self, device: str | torch.device) -> MixingOperator:
        """The same operator with its weights on ``device``, so no use of it there copies them."""


@dataclass(frozen=True, slots=True)
class Mixtures:
    """A batch of mixtures as a separator sees it: always without references.

    Attributes:
        values: ``(B, ...)`` float32 on the context's device. Never change them in place.
        example_ids: ``(B,)`` int64 on the CPU, the numbers of the examples in the frozen list. They are the key of all noise.
        operator: the mixing operator of exactly these examples (per-example gains included).
    """

    values: torch.Tensor
    example_ids: torch.Tensor
    operator: MixingOperator

    @property
    def n_sources(self) -> int:
        return self.operator.n_sources

    def __len__(self) -> int:
        return int(self.example_ids.shape[0])


def _no_references(example_ids: torch.Tensor) -> torch.Tensor:
    from sepbench.errors import SupervisionError

    raise SupervisionError("references are handed to methods of supervision 'bound' only; declare it in MethodInfo to get them")


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything a separator learns besides data.

    Attributes:
        task: the task to separate.
        device: ``cpu``, ``cuda`` or ``cuda:N``. The tensors that the separator returns are there.
        noise: the only source of randomness. A draw depends on (seed, example id, step, source), and never on the batch.
        seed: the run's seed, for anything drawn in ``fit``.
        budget: ``paper`` (settings of the paper) or ``quick`` (stated as such in the leaderboard).
        references: ``(B,)`` example ids -> ``(B, K, ...)`` true sources; raises SupervisionError unless the method declares ``bound``.
        progress: called by long loops of ``fit`` and ``separate`` with the fraction done in [0, 1] and one line of text.
        cache: a folder for the checkpoints of this very fit (training data, method, code, settings, seed, budget, precision). A fit that was killed
            finds there what it wrote. A finished fit leaves nothing. None if nothing is kept.
    """

    task: TaskSpec
    device: str
    noise: NoiseSource
    seed: int
    budget: Budget = "paper"
    references: Callable[[torch.Tensor], torch.Tensor] = _no_references
    progress: Callable[[float, str], None] = field(default=lambda fraction, text: None)
    cache: Path | None = None


class SignalSet(Protocol):
    """One split of one data set, in the data set's own order."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def domain(self) -> Domain: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one signal, without the batch axis."""

    @property
    def labels(self) -> torch.Tensor:
        """``(N,)`` int64 class numbers; zeros if the data set has no classes."""

    def __len__(self) -> int: ...

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Signals ``(n, *shape)`` float32 on the CPU: images in [0, 1], audio as stored. Any order, repetition allowed."""


class TrainingRows(Protocol):
    """Training signals by index, so a set need not fit in memory. The order is that of the accessor of the same name."""

    def __len__(self) -> int: ...

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Signals ``(n, ...)`` float32 on the CPU, with the suite's transform. Any order, repetition allowed."""


class TrainingView(Protocol):
    """Training data, cut to what the method's supervision level allows.

    All signals are from the training split, float32 on the CPU in the range of the suite's sources, in a fixed order. ``limit`` returns only the
    first so many. Each accessor raises ``SupervisionError`` at a level that does not include it, and ``prior`` also on tasks without
    ``TaskSpec.analytic_prior``. This check covers the interface only: a method could open the data by itself.

    =============  ========================================
    level          accessors
    =============  ========================================
    blind          none
    bound          ``prior``
    mixtures+one   ``mixtures``, ``observed``
    prior          ``clean``, ``prior``
    sources        ``clean``, ``sources``, ``prior``
    =============  ========================================
    """

    @property
    def supervision(self) -> Supervision: ...

    @property
    def task(self) -> TaskSpec: ...

    def mixtures(self, limit: int | None = None) -> torch.Tensor:
        """Training mixtures ``(N, ...)``; their sources are disjoint from ``observed``."""

    def observed(self, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of the one observed class."""

    def clean(self, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of all classes, pooled and without labels, in the data set's order."""

    def sources(self, slot: int, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of the class that source ``slot`` is drawn from."""

    def rows(self, what: Literal["mixtures", "observed", "clean", "sources"], slot: int = 0) -> TrainingRows:
        """The same signals as the accessor ``what`` returns, by index. ``slot`` matters for ``sources`` only."""

    def prior(self, slot: int) -> ScorePrior:
        """The true distribution of source ``slot``, in closed form."""


@runtime_checkable
class Separator(Protocol):
    """A method. Settings are keyword arguments of its constructor (a dataclass is the natural form).

    The results contain three optional attributes: ``posterior_samples`` (int, draws behind one estimate, 1 if absent), ``weights_sha256`` (str,
    digest of trained weights, known after ``fit``) and ``prior_label`` (str, what the prior is: kind, parameters, digest).
    """

    @property
    def info(self) -> MethodInfo: ...

    def supports(self, task: TaskSpec) -> Support:
        """Whether the method takes this task; ``note`` has a caveat or the reason."""

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn from what the supervision level allows. Called once per task. The result must follow from ``ctx.seed``."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Estimates ``(B, K, ...)`` float32 on ``ctx.device``. Row b depends only on mixture b and its example id."""


@runtime_checkable
class Fitted(Protocol):
    """Optional: sepbench can keep what ``fit`` learnt, so the method trains once. ``load`` must leave the method as ``fit`` did, to the bit."""

    def save(self, folder: Path) -> None:
        """Write what was learnt into an empty folder."""

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read it from there, onto ``ctx.device``. sepbench calls this instead of ``fit``."""


@runtime_checkable
class PosteriorSampler(Protocol):
    """Optional: draws from the posterior. It enables best-of-N, and the suites that score draws (``TaskSpec.posterior_draws``)."""

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        """``(B, N, K, ...)`` independent draws."""


@runtime_checkable
class CountsEvaluations(Protocol):
    """Optional, for separators on a score prior: how often they asked it, the cost that papers count; stands in the results beside the seconds."""

    def network_evaluations(self) -> torch.Tensor | None:
        """``(B,)`` of the last call: evaluations of the prior per source, all draws and probes of a mixture added up; None where they are not counted."""


@runtime_checkable
class HasLogProb(Protocol):
    """Optional: a prior density. It enables selection by likelihood."""

    def log_prob(self, sources: torch.Tensor) -> torch.Tensor:
        """``(B, K, ...)`` sources -> ``(B, K)`` log densities in nats."""


@runtime_checkable
class ScorePrior(Protocol):
    """A prior over clean sources, smoothed by Gaussian noise. A sampler needs to know nothing else of the sources.

    ``p_sigma`` is the density of ``x + sigma * n``, with x from the prior and n standard normal. Both methods take noisy sources ``(M, ...)`` and a
    noise level, one number or ``(M,)``, in units of the sources. Tweedie's formula connects them: ``score = (denoise - x) / sigma**2``.
    """

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Gradient of ``log p_sigma`` at x, ``(M, ...)``."""

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Posterior mean of the clean source given the noisy x, ``(M, ...)``."""


@runtime_checkable
class HasDensity(Protocol):
    """Optional, for priors of one source: the log density of the source. It enables best-of-N by density."""

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """``log p(x)`` in nats of clean sources ``(M, ...)``, ``(M,)`` float64."""


@runtime_checkable
class HasScorePrior(Protocol):
    """Optional, for separators: the score prior of a source, known after ``fit``. It enables pictures of the prior."""

    def score_prior(self, slot: int) -> ScorePrior:
        """The prior of source ``slot``."""
