"""Models as functions: one module a provider, each an `Ask`."""

from bezoar.params import Endpoint
from bezoar.records import Ask


def connect(endpoint: Endpoint) -> Ask:
    """The model that `endpoint` names."""
    from bezoar.llm import embedded

    return embedded.connect(endpoint.model)
