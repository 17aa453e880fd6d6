"""Names of replicas: ``agent#start`` is the address of one start of one replica, a name alone the agent itself."""


def address_of(agent: str, start: int) -> str:
    """The address of an agent's replica that was the ``start``-th of this agent to be started."""
    return f"{agent}#{start}"


def agent_of(address: str) -> str:
    """Whose replica this is."""
    return address.partition("#")[0]
