"""The synchronous SDK, generated from the asynchronous one; import it from ``agent_sandbox``."""
