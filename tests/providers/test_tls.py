"""A private server with a CA of its own: refused without --ca-bundle, trusted with it, by both SDKs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import candidates
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from loopback import Act, Loopback, answer

from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Outcome
from synth_core.settings import Settings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_a_private_ca(wire: str, bundle: Path, make_settings: Callable[..., Settings]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(bundle)
    outcomes = []
    with Loopback(lambda seen: Act(body=answer(seen.wire, "hello")), tls=tls) as server:
        for ca_bundle in ("", str(bundle)):
            options = {"ca_bundle": ca_bundle, "timeout": 10.0}
            settings = make_settings(wire, server.base_url(wire), provider=options)
            with Dispatcher(settings) as dispatcher:
                (done,) = dispatcher.complete(candidates(wire, 1))
            assert done.completion is not None
            outcomes.append(done.completion.outcome)
    assert outcomes == [Outcome.TRANSIENT, Outcome.OK]
