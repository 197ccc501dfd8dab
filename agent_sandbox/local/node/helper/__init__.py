"""The pod network: one small process that owns the namespaces in which Pods live.

It is started by ``agent_sandbox.local.node.network`` as ``python -I -S helper/__main__.py`` and uses the standard
library only, so that it starts in a few milliseconds and stays small. In flow requests over one Unix socket
(``channel``): make a Pod's network, start a process in it, hand out sockets. Out flow replies, descriptors and the
exit codes of processes. It writes down what containers print. It knows no Kubernetes.

It outlives a node that is killed, for a bounded time: the next node takes it over with all Pods that live. When it
ends, the kernel removes all it made: processes by their parent-death signal, interfaces and mounts with their
namespaces.
"""
