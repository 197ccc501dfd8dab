"""SandboxClaim → one Sandbox: a warm member of a pool, or a cold one of its own."""
