"""Ways to route that others have published, each in a file of its own, on equal terms: the same rows to learn from, the
same features, everything that can be chosen chosen on the same validation rows.

Cascades choose their thresholds by what all their drafts cost, as they were published, and once more (``-by-price``) by
the price of the answer alone, which is how the utility of the tables counts.

A new one is a class in a file here, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.baselines.automix import AutoMix
from benchmarks.baselines.base import Router
from benchmarks.baselines.forc import Forc
from benchmarks.baselines.frugalgpt import FrugalGPT
from benchmarks.baselines.graphrouter import GraphRouter
from benchmarks.baselines.irt import IRT
from benchmarks.baselines.knn import Knn
from benchmarks.baselines.logistic import Logistic
from benchmarks.baselines.matrix_factorisation import MatrixFactorisation
from benchmarks.baselines.mlp import MLP
from benchmarks.baselines.routellm import RouteLLMClassifier, RouteLLMMatrixFactorisation
from benchmarks.baselines.routerdc import RouterDC
from benchmarks.baselines.simple import BestSingle, Largest, Random, Smallest
from benchmarks.baselines.uncertainty import Uncertainty
from benchmarks.baselines.uniroute import UniRoute

__all__ = ["BASELINES", "Router"]

BASELINES: dict[str, Callable[[], Router]] = {
    "random": Random,
    "smallest": Smallest,
    "largest": Largest,
    "best-single": BestSingle,
    "knn": Knn,
    "logistic": Logistic,
    "mlp": MLP,
    "matrix-factorisation": MatrixFactorisation,
    "routellm-mf": RouteLLMMatrixFactorisation,
    "routellm-classifier": RouteLLMClassifier,
    "forc": Forc,
    "uniroute": UniRoute,
    "frugalgpt": FrugalGPT,
    "frugalgpt-by-price": partial(FrugalGPT, full=False),
    "automix": AutoMix,
    "automix-by-price": partial(AutoMix, full=False),
    "uncertainty": Uncertainty,
    "uncertainty-by-price": partial(Uncertainty, full=False),
    "graphrouter": GraphRouter,
    "routerdc": RouterDC,
    "irt-router": IRT,
}
