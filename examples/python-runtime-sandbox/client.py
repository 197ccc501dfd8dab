"""Use the runtime through the SDK: nothing in it needs to know that the runtime is one's own."""

from agent_sandbox import SandboxClient

with SandboxClient(template_name="my-runtime-template") as sandbox:
    sandbox.write("hello.py", "import platform; print('hello from', platform.system())")
    result = sandbox.run("python3 hello.py")
    print(result.stdout, end="")

    sandbox.run("sh -c 'echo 6 times 7 is $((6 * 7)) > answer.txt'")
    print(sandbox.read("answer.txt").decode(), end="")
