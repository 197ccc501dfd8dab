"""The core group, agents.x-k8s.io: Sandbox."""
