"""The extensions group, extensions.agents.x-k8s.io: SandboxTemplate, SandboxClaim, SandboxWarmPool."""
