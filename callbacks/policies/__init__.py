"""Published guards, each a policy on the same interface; to add one, write a file and name it
here.
"""

from collections.abc import Mapping

from callbacks.policies.base import Policy
from callbacks.policies.concentration import Concentration
from callbacks.policies.divergence import Divergence
from callbacks.policies.entropy_floor import EntropyFloor
from callbacks.policies.guard import PolicyGuard
from callbacks.policies.martingale import Martingale
from callbacks.policies.periodic import Periodic
from callbacks.policies.proxy_risk import ProxyRisk
from callbacks.policies.stochastic_restore import StochasticRestore
from callbacks.policies.zscore import ZScore

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
