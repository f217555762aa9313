"""What learning with noise has spent of each machine's privacy: epsilon at a delta.

Each step gives away one sum over a site's machines with Gaussian noise on it, so that all steps
together are the Gaussian mechanism, composed. A machine is of one site; what other sites do
spends nothing of it. Neighbours differ in one machine's whole record, there or not there.
"""

from __future__ import annotations

from cloud.errors import MissingExtraError

from .run_files import FEDERATED_PINS

# Below 1 / machines of any consortium that this is for.
DELTA = 1e-3


def epsilon(noise: float, steps: int, delta: float = DELTA) -> float:
    """Epsilon after so many steps.

    Args:
        noise: standard deviation in clips, above 0.
        steps: from 0.
        delta: between 0 and 1.

    Raises:
        MissingExtraError: the accountant is not installed.
    """
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError as error:
        raise MissingExtraError("dp-accounting", "federated", FEDERATED_PINS) from error
    if steps == 0:
        return 0.0
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise), steps)
    return float(accountant.get_epsilon(delta))
