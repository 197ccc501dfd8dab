"""SandboxWarmPool → its members, ready to be claimed."""
