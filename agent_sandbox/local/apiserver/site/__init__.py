"""The wire: TLS, tokens and WebSockets on loopback in front of an ``ApiServer``."""

from agent_sandbox.local.apiserver.site.credentials import SiteCredentials
from agent_sandbox.local.apiserver.site.site import ApiServerSite, PortTakenError

__all__ = ["ApiServerSite", "PortTakenError", "SiteCredentials"]
