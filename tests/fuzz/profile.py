"""How much generated tests do: bounded, the same in each CI run, and more with ``TEST_FACTOR=20``."""

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

from tests.server import CI

FACTOR: Final = int(os.environ.get("TEST_FACTOR", "1"))


def bounded(examples: int, *, steps: int = 50) -> settings:
    """Settings for ``examples`` examples, times the factor."""
    return settings(
        max_examples=examples * FACTOR,
        stateful_step_count=steps,
        deadline=None,
        derandomize=CI and FACTOR == 1,
        print_blob=True,
        report_multiple_bugs=False,
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
