"""Agent Sandbox: isolated, stateful, instantly ready computers for AI agents."""
