"""The verbs of whoever uses sandboxes: create, run, exec, cp, ls and the rest.

In: what was typed. Out: calls of the SDK, and their results on the terminal. A verb decides nothing about sandboxes:
what it can do is in ``agent_sandbox.sdk``, which a module here loads only when its verb runs.
"""
