"""A chat model that says what a script says: the example runs without a key and without a network."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage


class ScriptedChatModel(FakeMessagesListChatModel):
    """Says one message after the other: ``{"say": text, "call": {name: arguments}}``, where either may be missing."""

    def __init__(self, script: Sequence[dict[str, Any]]) -> None:
        super().__init__(responses=[message(step, each) for step, each in enumerate(script)])

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> "ScriptedChatModel":
        """It knows what it will call."""
        return self


def message(step: int, said: dict[str, Any]) -> AIMessage:
    """What a real model would have said."""
    calls = [
        {"name": name, "args": arguments, "id": f"step-{step}-{name}"}
        for name, arguments in said.get("call", {}).items()
    ]
    return AIMessage(said.get("say", ""), tool_calls=calls)
