"""Environment variables of a claim: whether its template takes them, and where they go."""

from agent_sandbox_api.extensions.v1alpha1 import EnvVar, EnvVarsInjectionPolicy, SandboxClaim, SandboxTemplate
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason


def _rejected(text: str) -> Trouble:
    return Trouble(Reason.ENV_REJECTED, text)


def with_environment(spec: JsonObject, claim: SandboxClaim, template: SandboxTemplate) -> JsonObject | Trouble:
    """Add the claim's variables to a Pod spec, in place.

    Args:
        spec: the Pod spec of the new Sandbox; changed.
        claim: whose variables.
        template: whose policy.

    Returns:
        The spec, or why the template does not take the variables.
    """
    variables = claim.spec.env or []
    if not variables:
        return spec
    policy = template.spec.env_vars_injection_policy
    if policy not in (EnvVarsInjectionPolicy.ALLOWED, EnvVarsInjectionPolicy.OVERRIDES):
        return _rejected(
            f'SandboxTemplate "{template.metadata.name}" takes no environment variables from claims; remove spec.env, '
            "or set envVarsInjectionPolicy of the template to Allowed or Overrides"
        )
    # Variables that name their container come first: the nameless may then see them in the first container.
    for variable in sorted(variables, key=lambda each: each.container_name is None):
        trouble = _inject(spec, variable, overrides=policy == EnvVarsInjectionPolicy.OVERRIDES)
        if trouble is not None:
            return trouble
    return spec


def _inject(spec: JsonObject, variable: EnvVar, *, overrides: bool) -> Trouble | None:
    container = _container(spec, variable.container_name)
    if container is None:
        return _rejected(
            f'environment variable "{variable.name}": the template has no container "{variable.container_name}"'
        )
    if not overrides and container.get("envFrom"):
        return _rejected(
            f'environment variable "{variable.name}": container "{container["name"]}" takes variables with envFrom, '
            "which the claim could override; that needs envVarsInjectionPolicy: Overrides"
        )
    present = container.setdefault("env", [])
    entry = {"name": variable.name, "value": variable.value}
    for index, existing in enumerate(present):
        if existing.get("name") == variable.name:
            if not overrides:
                return _rejected(
                    f'environment variable "{variable.name}" is set by the template in container '
                    f'"{container["name"]}"; replacing it needs envVarsInjectionPolicy: Overrides'
                )
            present[index] = entry
            return None
    present.append(entry)
    return None


def _container(spec: JsonObject, name: str | None) -> JsonObject | None:
    containers: list[JsonObject] = list(spec.get("containers") or ())
    if name is None:
        return containers[0] if containers else None
    for container in [*(spec.get("initContainers") or ()), *containers]:
        if container.get("name") == name:
            found: JsonObject = container
            return found
    return None
