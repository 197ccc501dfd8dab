"""Run code in the sandbox's Jupyter from a program, through the router: client.py SANDBOX 'code'.

The kernel stays between two runs, as a notebook's does: what one has defined the next one knows.
"""

import asyncio
import secrets
import sys
import uuid

import aiohttp

from agent_sandbox import AsyncSandboxes

PORT = 8080


async def run_cell(session: aiohttp.ClientSession, kernel: str, code: str) -> int:
    """Run code in a kernel and print what it prints; 1 if it ends with an error."""
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": message, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
    async with session.ws_connect(f"api/kernels/{kernel}/channels") as socket:
        parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await socket.send_json({"channel": "shell", "buffers": [], **parts})
        status = 0
        async for frame in socket:
            answer = frame.json()
            if answer["parent_header"].get("msg_id") != message:
                continue
            match answer["msg_type"]:
                case "stream":
                    print(answer["content"]["text"], end="")
                case "execute_result":
                    print(answer["content"]["data"]["text/plain"])
                case "error":
                    print(*answer["content"]["traceback"], sep="\n", file=sys.stderr)
                    status = 1
                case "status" if answer["content"]["execution_state"] == "idle":
                    return status
    raise ConnectionError("Jupyter closed the kernel's channel")


async def main(name: str, code: str) -> int:
    """Use the kernel that runs in the sandbox, or start one."""
    async with AsyncSandboxes() as sandboxes:
        ports = (await sandboxes.connect(name)).ports
        proof = secrets.token_hex(16)  # Jupyter wants to see the same value twice of whoever is no browser page
        headers = {**await ports.signed_headers(PORT), "Cookie": f"_xsrf={proof}", "X-XSRFToken": proof}
        base = f"{ports.url(PORT).rstrip('/')}/jupyter/"
        async with aiohttp.ClientSession(base, headers=headers, raise_for_status=True) as session:
            async with session.get("api/kernels") as answer:
                kernels = await answer.json()
            if not kernels:
                async with session.post("api/kernels", json={"name": "python3"}) as answer:
                    kernels = [await answer.json()]
            return await run_cell(session, kernels[0]["id"], code)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
