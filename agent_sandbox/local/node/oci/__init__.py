"""Images: read from OCI layouts and archives or fetched from Podman or Docker, unpacked once, kept in the state folder.

In: an image reference, a layout, an archive. Out: a directory that becomes the root file system of containers behind
the same walls and in the same network as every other Pod. No container ever runs in Podman or Docker themselves: their
networks know nothing of this stack's policies.
"""

from agent_sandbox.local.node.oci.engine import ImageEngine, find_engine
from agent_sandbox.local.node.oci.images import ImageSource
from agent_sandbox.local.node.oci.store import ImageStore, StoredImage

__all__ = ["ImageEngine", "ImageSource", "ImageStore", "StoredImage", "find_engine"]
