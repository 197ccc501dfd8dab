"""The typed API of Agent Sandbox: models of its four kinds and lean views of the core kinds around them.

This package knows no network and nobody else in the house. Two forms of each of our kinds stand side by side:

* a pydantic **model** (``Sandbox``) is what people write and read: validated, documented, the source of the CRDs;
* a msgspec **view** (``SandboxView``) is what caches keep: decoded once from the wire, only as deep as its readers
  need, about a tenth of the model's memory. ``view.model()`` turns the one object that is asked for into its model.

Core kinds (Pod, Service, ...) have views only. A ``Resource`` says where a kind lives in an API server and which view
its objects decode into.
"""
