"""Sandbox → its volumes, its Service, its Pod, and the truth about them."""
