"""TLS before the router: certificates change while it runs, clients may have to show theirs."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent_sandbox.router import RouterConfigError, RouterOptions


def write_pair(directory: Path, name: str) -> None:
    """A certificate that signed itself, as cert.pem, and its key, as key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(exist_ok=True)
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def client_context(own: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(own / "cert.pem", own / "key.pem")
    return context


async def ask(place: Any, request: bytes, context: ssl.SSLContext) -> tuple[bytes, str]:
    """The answer, and the name in the router's certificate."""
    reader, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(request)
    answer = await reader.read(-1)
    writer.close()
    return answer, x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def is_turned_away(place: Any, request: bytes, context: ssl.SSLContext) -> bool:
    """Whether the handshake fails; in TLS 1.3 the client may learn of it only after its own part."""
    try:
        answer, _ = await ask(place, request, context)
    except (ssl.SSLError, ConnectionError):
        return True
    return answer == b""


async def echo(visit: Any) -> None:
    await visit.answer(await visit.head())


GET = b"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nConnection: close\r\n\r\n"


async def test_certificate_is_replaced_while_the_router_runs_and_a_bad_one_is_not(
    run_router: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pair(tmp_path, "first")
    async with run_router(tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as place:
        box = await place.sandbox(echo)
        certificate = place.router._certificate
        answer, first = await ask(place, GET % box.port, client_context())
        write_pair(tmp_path, "second")
        certificate.refresh_blocking()
        _, second = await ask(place, GET % box.port, client_context())
        old_key = (tmp_path / "key.pem").read_bytes()
        write_pair(tmp_path, "third")
        (tmp_path / "key.pem").write_bytes(old_key)
        certificate.refresh_blocking()
        _, third = await ask(place, GET % box.port, client_context())

    assert b"X-Forwarded-Proto: https\r\n" in answer
    assert (first, second, third) == ("CN=first", "CN=second", "CN=second")
    assert "the old certificate stays in use" in caplog.text


async def test_client_without_a_certificate_of_ours_does_not_get_in(run_router: Any, tmp_path: Path) -> None:
    write_pair(tmp_path, "router")
    write_pair(tmp_path / "friend", "friend")
    write_pair(tmp_path / "stranger", "stranger")
    files = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    async with run_router(**files, tls_client_ca=tmp_path / "friend" / "cert.pem") as place:
        box = await place.sandbox(echo)
        answer, _ = await ask(place, GET % box.port, client_context(tmp_path / "friend"))
        for context in (client_context(), client_context(tmp_path / "stranger")):
            assert await is_turned_away(place, GET % box.port, context)

    assert answer.startswith(b"HTTP/1.1 200")
    assert box.visits == 1


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RouterConfigError, match="both or none"):
        RouterOptions(unsafe_allow_all=True, tls_certificate=tmp_path / "cert.pem")
