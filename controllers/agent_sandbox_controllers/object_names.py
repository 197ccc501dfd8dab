"""Names of the objects that we make for others, and the identity of a template.

A name that would be too long is cut and gets a hash of its full form, so that two long names stay two names.
"""

import hashlib
from functools import lru_cache
from typing import Final

MAX_NAME: Final = 253
"""Longest name of most kinds: a DNS subdomain."""
MAX_LABEL: Final = 63
"""Longest DNS label; also the longest label value."""
_DIGEST: Final = 10


def bounded_name(name: str, limit: int) -> str:
    """The name itself if it fits, else its beginning and a hash of all of it."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: limit - _DIGEST - 1].rstrip('-.')}-{digest}"


def volume_claim_name(template: str, sandbox: str) -> str:
    """Name of the PersistentVolumeClaim of one volume template, as a StatefulSet names it.

    >>> volume_claim_name("data", "alice")
    'data-alice'
    """
    return bounded_name(f"{template}-{sandbox}", MAX_NAME)


@lru_cache(maxsize=1024)
def template_id(namespace: str, name: str) -> str:
    """A label value that stands for one template and, unlike the 32-bit name hash, cannot be made to collide."""
    return hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:40]


def policy_name(template_namespace: str, template: str, namespace: str) -> str:
    """Name of a template's NetworkPolicy in a namespace: the Go project's at home, with a hash abroad.

    >>> policy_name("default", "python", "default")
    'python-network-policy'
    """
    if template_namespace == namespace:
        return bounded_name(f"{template}-network-policy", MAX_NAME)
    return bounded_name(f"{template}-{template_id(template_namespace, template)[:_DIGEST]}-network-policy", MAX_NAME)


def member_name(pool: str, suffix: str) -> str:
    """Name of a pool's member; short enough to name a Service too."""
    return f"{bounded_name(pool, MAX_LABEL - len(suffix) - 1)}-{suffix}"
