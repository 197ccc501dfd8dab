"""The filter as the kernel would run it: a small interpreter of classic BPF decides about single calls."""

import struct

import pytest

from agent_sandbox.local.node.errors import UnsupportedMachineError
from agent_sandbox.local.node.seccomp import denied_calls, filter_program

X86, ARM = 0xC000003E, 0xC00000B7
ALLOW, EPERM, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x50001, 0x50026, 0x50061


def verdict(machine: str, arch: int, number: int, *arguments: int) -> int:
    program = filter_program(machine)
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, 8 * position)
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x45:
                position += if_true if accumulator & value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", X86), ("aarch64", ARM)])
def test_every_listed_call_is_refused_and_ordinary_ones_pass(machine: str, arch: int) -> None:
    numbers = denied_calls(machine)

    assert {verdict(machine, arch, number) for number in numbers.values()} == {EPERM}
    ordinary = {"x86_64": (0, 1, 2, 9, 59, 202, 257), "aarch64": (56, 63, 64, 98, 221, 222)}[machine]
    assert {verdict(machine, arch, number) for number in ordinary} == {ALLOW}


def test_threads_pass_and_new_namespaces_do_not() -> None:
    thread = 0x003D0F00
    assert verdict("x86_64", X86, 56, thread) == ALLOW
    assert verdict("x86_64", X86, 56, 17) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict("x86_64", X86, 56, 17 | flag) == EPERM
    assert verdict("x86_64", X86, 435) == ENOSYS


def test_sockets_pass_by_family() -> None:
    allowed = {family for family in range(50) if verdict("x86_64", X86, 41, family) == ALLOW}

    assert allowed == {1, 2, 10, 16}
    assert verdict("x86_64", X86, 41, 40) == EAFNOSUPPORT


def test_pushing_input_into_a_terminal_is_refused_and_other_ioctls_pass() -> None:
    assert verdict("x86_64", X86, 16, 0, 0x5412) == EPERM
    assert verdict("x86_64", X86, 16, 0, 0x5413) == ALLOW


def test_calls_by_another_architectures_numbers_do_not_exist() -> None:
    assert verdict("x86_64", 0x40000003, 1) == ENOSYS
    assert verdict("x86_64", X86, 0x40000000 | 1) == ENOSYS


def test_an_unknown_machine_is_an_error_not_an_open_door() -> None:
    with pytest.raises(UnsupportedMachineError, match="riscv64"):
        filter_program("riscv64")
