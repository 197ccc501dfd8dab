"""A small agent: a chat model that works in a sandbox until it has an answer."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool
from sandbox_tools import sandbox_tools
from scripted_model import ScriptedChatModel

from agent_sandbox import SandboxClient

TASK = "Which numbers below 30 are prime? Compute it."
SYSTEM = "You have a Linux computer without a network. Compute instead of guessing."


def answer(model: BaseChatModel, tools: Sequence[BaseTool], task: str, *, steps: int = 20) -> list[BaseMessage]:
    """Let the model call tools until it calls none; gives the whole conversation.

    Raises:
        RuntimeError: it still calls tools after so many steps.
    """
    named = {tool.name: tool for tool in tools}
    ready = model.bind_tools(tools)
    messages: list[BaseMessage] = [SystemMessage(SYSTEM), HumanMessage(task)]
    for _ in range(steps):
        said = ready.invoke(messages)
        messages.append(said)
        if not isinstance(said, AIMessage) or not said.tool_calls:
            return messages
        messages += [named[call["name"]].invoke(call) for call in said.tool_calls]
    raise RuntimeError(f"the model has no answer after {steps} steps")


def main() -> None:
    """Read the command line, open a sandbox, answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", default=TASK, help="what to do (%(default)s)")
    parser.add_argument(
        "--model", help="as init_chat_model names it, for example anthropic:claude-sonnet-4-5; default: a script"
    )
    given = parser.parse_args()
    if given.model is None:
        model: BaseChatModel = ScriptedChatModel(json.loads(Path(__file__).with_name("script.json").read_text()))
    else:
        from langchain.chat_models import init_chat_model  # the package langchain, and the provider's

        model = init_chat_model(given.model)
    with SandboxClient(template_name="langchain-template") as sandbox:
        for message in answer(model, sandbox_tools(sandbox), given.task):
            message.pretty_print()


if __name__ == "__main__":
    main()
