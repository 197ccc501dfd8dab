"""Call the server's tools, as an agent would: over stdio, or over HTTP with ``--url`` and the token in MCP_TOKEN."""

import argparse
import os
import sys
from pathlib import Path

import anyio
import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

SERVER = str(Path(__file__).with_name("server.py"))


async def talk(client: Client) -> None:
    """What an agent might do."""
    print("tools:", *sorted(tool.name for tool in (await client.list_tools()).tools))
    await client.call_tool(
        "write_file",
        {"path": "primes.py", "content": "print([n for n in range(2, 30) if all(n % d for d in range(2, n))])"},
    )
    for name, arguments in [
        ("run", {"command": "python3 primes.py | tee primes.txt"}),
        ("read_file", {"path": "primes.txt"}),
        ("list_files", {}),
        ("read_file", {"path": "nothing"}),
    ]:
        result = await client.call_tool(name, arguments)
        said = [part.text for part in result.content if isinstance(part, TextContent)]
        print(f"{name}:", *said if result.is_error else [result.structured_content])


async def main() -> None:
    """Connect, talk, leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="the server's address; without it a server is started, on stdio")
    url = parser.parse_args().url
    if url is None:
        transport = stdio_client(StdioServerParameters(command=sys.executable, args=[SERVER], env=dict(os.environ)))
        async with Client(transport) as client:
            await talk(client)
    else:
        headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
        patient = httpx2.AsyncHTTPTransport(retries=5)  # the server may still be starting
        async with (
            httpx2.AsyncClient(headers=headers, timeout=300, transport=patient) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await talk(client)


anyio.run(main)
