"""The four controllers of Agent Sandbox: one room per kind, each with a pure plan and a thin reconciler.

In: a manager of ``agent_sandbox.runtime`` and options. Out: controllers in it. ``sandbox`` keeps a Pod with its Service
and volumes, ``sandboxtemplate`` the NetworkPolicy, ``sandboxwarmpool`` the members, ``sandboxclaim`` hands them out.
The words that they share stand beside them: ``ownership``, ``conditions``, ``troubles``, ``blueprint``, ``actions``.
"""

from agent_sandbox.runtime import Manager
from agent_sandbox_controllers.errors import ControllerError, OptionError
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.rbac import RULES, Rule, rules

__all__ = ["RULES", "ControllerError", "ControllerOptions", "OptionError", "Rule", "register", "rules"]


def register(manager: Manager, options: ControllerOptions | None = None) -> None:
    """Add the four controllers to a manager, with their watches, indexes and metrics. Call it before the manager runs.

    Args:
        manager: runs them.
        options: their knobs; the defaults if none are given.
    """
    from agent_sandbox_controllers.collector import SandboxCollector
    from agent_sandbox_controllers.indexes import register_indexes
    from agent_sandbox_controllers.metrics import ControllerMetrics
    from agent_sandbox_controllers.sandbox.watches import sandbox_controller
    from agent_sandbox_controllers.sandboxclaim.watches import claim_controller
    from agent_sandbox_controllers.sandboxtemplate.reconciler import template_controller
    from agent_sandbox_controllers.sandboxwarmpool.reconciler import pool_controller
    from agent_sandbox_controllers.world import World

    register_indexes(manager.cache)
    world = World(
        client=manager.client,
        cache=manager.cache,
        clock=manager.clock,
        events=manager.events,
        options=options or ControllerOptions(),
        metrics=ControllerMetrics(manager.registry),
    )
    manager.registry.register(SandboxCollector(world))
    # Policies first: at a cold start the Pods wait for them.
    manager.add(template_controller(world))
    manager.add(claim_controller(world))
    manager.add(sandbox_controller(world))
    manager.add(pool_controller(world))
