"""What an agent does to its host: a small privileged process beside it, and the agent's handle on that."""
