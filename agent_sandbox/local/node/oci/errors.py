"""What can go wrong with an image, beside what a container says (``ImageError``)."""

from agent_sandbox.local.node.errors import NodeError


class ImageFormatError(NodeError):
    """What was given is no image for this machine; the message says what is wrong with it."""
