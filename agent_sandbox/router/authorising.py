"""Who may pass, and where to: decided for each request, before anything is dialled, woken or waited for.

In: a credential and a route. Out: the holder of the sandbox that the credential opens, or a refusal. Which kinds of
credentials count is a set of modes:

    claim-key     signed by a key that the claim names (`agent_sandbox_api.access`); what the SDK sends by itself
    tokenreview   a Kubernetes token, checked by TokenReview and SubjectAccessReview
    scoped-token  signed by a key of the router's key file, for one sandbox
    static-token  a line of the router's token file, for everything
    allow-all     no credential is asked for

A stranger cannot find out by these answers which sandboxes there are.
"""

import hmac
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient
from agent_sandbox.router.credentials import WatchedFile, read_tokens
from agent_sandbox.router.directory import Directory, Holder
from agent_sandbox.router.errors import (
    ForbiddenError,
    NotFoundError,
    RefusalError,
    RouterConfigError,
    UnauthenticatedError,
)
from agent_sandbox.router.options import AuthzMode, RouterOptions
from agent_sandbox.router.reviewing import Reviewer
from agent_sandbox.router.routing import Route
from agent_sandbox.router.tokens import SCOPED_TOKEN_PREFIX, TokenKeys, glance
from agent_sandbox_api.access import ACCESS_TOKEN_PREFIX, AccessToken, AccessTokenError

REMEMBERED_TOKENS: Final = 4096
"""Access tokens whose signature is known to be right: checking one costs more than all else that is done here."""


@dataclass(frozen=True)
class Admission:
    """A request may pass.

    Attributes:
        holder: whose sandbox it goes to.
        expires: seconds since 1970 at which the credential ends; None if it opens more than this one sandbox.
    """

    holder: Holder
    expires: int | None = None


class Authoriser:
    """Decides who may pass.

    Args:
        kube: asked in the mode ``tokenreview``.

    Raises:
        RouterConfigError: a file is no good, or nobody can be asked.
    """

    def __init__(self, directory: Directory, options: RouterOptions, *, clock: Clock, kube: KubeClient | None) -> None:
        self._directory = directory
        self._wait = options.wait_unknown
        self._clock = clock
        self._modes = modes = options.authz_modes
        self._tokens = (
            WatchedFile(options.token_file, read_tokens)
            if options.token_file is not None and AuthzMode.STATIC_TOKEN in modes
            else None
        )
        self._keys = (
            WatchedFile(options.key_file, lambda path: TokenKeys.from_file(path, clock=clock))
            if options.key_file is not None and AuthzMode.SCOPED_TOKEN in modes
            else None
        )
        self._reviewer: Reviewer | None = None
        if AuthzMode.TOKENREVIEW in modes:
            if kube is None:
                raise RouterConfigError("the mode tokenreview needs an API server to ask")
            self._reviewer = Reviewer(kube, audiences=options.token_audiences)
        # The public key that each of them was checked with.
        self._checked: OrderedDict[str, tuple[AccessToken, str]] = OrderedDict()

    async def authorise(self, credential: str | None, route: Route) -> Admission:
        """Whose sandbox the request may go to.

        Args:
            credential: the value of ``X-Sandbox-Authorization``.

        Raises:
            UnauthenticatedError: no credential, or none of ours.
            ForbiddenError: one for something else.
            NotFoundError: the credential is good, and there is no such sandbox.
            NotReadyError: nobody can be asked about the credential now.
        """
        if AuthzMode.ALLOW_ALL in self._modes:
            return Admission(await self._find(route))
        scheme, _, token = (credential or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("Missing or invalid X-Sandbox-Authorization header.")
        if self._tokens is not None:
            offered = token.encode("utf-8", "surrogateescape")
            known = await self._tokens.get()
            if any(hmac.compare_digest(offered, one) for one in known):
                return Admission(await self._find(route))
        if AuthzMode.CLAIM_KEY in self._modes and token.startswith(ACCESS_TOKEN_PREFIX):
            return await self._by_claim_key(token, route)
        if self._keys is not None and token.startswith(SCOPED_TOKEN_PREFIX):
            return await self._by_scope(await self._keys.get(), token, route)
        if self._reviewer is not None:
            return await self._by_review(self._reviewer, token, route)
        raise UnauthenticatedError("Invalid token.")

    def is_for(self, credential: str | None, namespace: str, identifier: str) -> bool:
        """Whether a credential says that it is for this sandbox. That is no right: `authorise` finds out about it."""
        _, _, token = (credential or "").partition(" ")
        try:
            named = self._named_by(token.strip())
            holder = self._directory.holder(namespace, identifier)
        except (UnauthenticatedError, NotFoundError):
            return False
        return named == (holder.namespace, holder.name)

    def _named_by(self, token: str) -> tuple[str, str] | None:
        if token.startswith(ACCESS_TOKEN_PREFIX):
            access = self._read(token)
            return access.namespace, access.name
        scope = glance(token)
        return None if scope is None else (scope.namespace, scope.name)

    async def _find(self, route: Route) -> Holder:
        return await self._directory.find(route.namespace, route.identifier, wait_unknown=self._wait)

    async def _by_claim_key(self, token: str, route: Route) -> Admission:
        access = self._read(token)
        if self._clock.now().timestamp() >= access.expires:
            raise UnauthenticatedError("The token has expired; get a new one.")
        # The claim, or its key, may be so new that our watch has not told of it; and a stranger must wait as long for
        # a sandbox that exists as for one that does not.
        until = anyio.current_time() + self._wait
        while not self._opens(token, access, route):
            left = until - anyio.current_time()
            if left <= 0:
                raise ForbiddenError("This credential is for another sandbox, or its key is not named by the claim.")
            await self._directory.wait_for_change(route.namespace, left)
        if access.ports and route.port not in access.ports:
            raise ForbiddenError(f"This credential is not for port {route.port} of the sandbox.")
        return Admission(self._directory.holder(route.namespace, route.identifier), access.expires)

    def _read(self, token: str) -> AccessToken:
        if (checked := self._checked.get(token)) is not None:
            return checked[0]
        try:
            return AccessToken.parse(token)
        except AccessTokenError:
            raise UnauthenticatedError("Invalid token.") from None

    def _opens(self, token: str, access: AccessToken, route: Route) -> bool:
        try:
            holder = self._directory.holder(route.namespace, route.identifier)
        except NotFoundError:
            return False
        if (access.namespace, access.name, access.uid) != (holder.namespace, holder.name, holder.uid):
            return False
        key = access.key_in(holder.access_keys)
        if key is None:
            return False
        checked = self._checked.get(token)
        if checked is None or checked[1] != key:
            if not access.is_signed_by(key):
                return False
            self._checked[token] = (access, key)
            if len(self._checked) > REMEMBERED_TOKENS:
                self._checked.popitem(last=False)
        return True

    async def _by_scope(self, keys: TokenKeys, token: str, route: Route) -> Admission:
        scope = keys.read(token)
        async with self._equally_late():
            if scope.namespace != route.namespace:
                raise ForbiddenError("This credential is for another sandbox.")
            try:
                holder = await self._find(route)
            except RefusalError:
                if scope.name != route.identifier:
                    raise ForbiddenError("This credential is for another sandbox.") from None
                raise
            scope.check(namespace=holder.namespace, name=holder.name, uid=holder.uid, port=route.port)
        return Admission(holder, scope.expires)

    async def _by_review(self, reviewer: Reviewer, token: str, route: Route) -> Admission:
        user = await reviewer.authenticate(token)
        async with self._equally_late():
            try:
                holder = await self._find(route)
            except NotFoundError:
                # Only who might see such a claim learns that there is none.
                await reviewer.authorise(user, namespace=route.namespace, name=route.identifier, claimed=True)
                raise
            await reviewer.authorise(user, namespace=holder.namespace, name=holder.name, claimed=holder.claimed)
        return Admission(holder)

    @asynccontextmanager
    async def _equally_late(self) -> AsyncIterator[None]:
        """Make a refusal for a sandbox that exists take as long as one for a name that is waited for."""
        until = anyio.current_time() + self._wait
        try:
            yield
        except ForbiddenError:
            await anyio.sleep(max(0.0, until - anyio.current_time()))
            raise
