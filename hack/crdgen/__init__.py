"""Generates CustomResourceDefinitions from the pydantic models of ``agent_sandbox_api``.

In: the models, and for the core types inside them the metadata of the installed kubernetes_asyncio. Out: one
structural OpenAPI v3 schema per kind, without references and without ``preserve-unknown-fields``.

``core_types`` turns Kubernetes' own types into schemas, ``core_rules`` holds what that metadata does not say,
``models`` turns our models into schemas, ``definitions`` makes whole CustomResourceDefinitions of them.
"""
