"""Published guards, each a policy on the same interface; to add one, write a file and name it
here.
"""

from collections.abc import Mapping

from holdfast.callbacks.policies.base import Policy
from holdfast.callbacks.policies.concentration import Concentration
from holdfast.callbacks.policies.divergence import Divergence
from holdfast.callbacks.policies.entropy_floor import EntropyFloor
from holdfast.callbacks.policies.guard import PolicyGuard
from holdfast.callbacks.policies.martingale import Martingale
from holdfast.callbacks.policies.periodic import Periodic
from holdfast.callbacks.policies.proxy_risk import ProxyRisk
from holdfast.callbacks.policies.stochastic_restore import StochasticRestore
from holdfast.callbacks.policies.zscore import ZScore

#: Policies by name: the one place where one is added.
POLICIES: Mapping[str, type[Policy]] = {
    "periodic": Periodic,
    "entropy_floor": EntropyFloor,
    "stochastic_restore": StochasticRestore,
    "divergence": Divergence,
    "concentration": Concentration,
    "zscore": ZScore,
    "martingale": Martingale,
    "proxy_risk": ProxyRisk,
}

__all__ = ["POLICIES", "Policy", "PolicyGuard"]
