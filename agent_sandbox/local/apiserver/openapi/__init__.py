"""OpenAPI: the documents that describe everything served."""

from agent_sandbox.local.apiserver.openapi.documents import OpenApi

__all__ = ["OpenApi"]
