"""Coming to an OPC UA server: channel, certificates, a new session or one that goes on, and what is said when it does not work."""

import asyncio
import ssl
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asyncua import Client, ua
from asyncua.crypto import uacrypto
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from adapters.opcua.settings import OpcUaSettings
from events.errors import Unavailable

GARBLED = (AssertionError, ValueError, struct.error)  # what the library makes of an answer that it does not understand
TROUBLE = (OSError, ua.UaError, EOFError, asyncio.CancelledError, ssl.SSLError, *GARBLED)  # what a server and a line can do to us


@dataclass(frozen=True, slots=True)
class Session:
    """What it takes to go on with a session and its subscription over another connection, also after a kill -9.

    `started` is when the server was: after a restart it may give the same tokens to others. `next` is the message that is expected.
    """

    token: str
    nonce: bytes
    subscription: int
    started: str
    next: int


async def new(settings: OpcUaSettings) -> Client:
    """Logged in with a session of its own."""
    client = await _client(settings)
    try:
        await _channel(client)
        await client.create_session()
        await client.activate_session(username=client._username, password=client._password)
    except BaseException:
        client.disconnect_socket()
        raise
    return client


async def started(client: Client) -> str:
    """When the server was."""
    found: datetime = await client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime)).read_value()
    return found.isoformat()


async def resumed(
    settings: OpcUaSettings, session: Session, like: Client, ask: ua.ModifySubscriptionParameters
) -> tuple[Client, object] | None:
    """The session from before over a new channel, and what the server revised of `ask`; None if it, or its subscription, is not there any more.

    `like` is logged in anew and has learnt from the server what a login needs.
    """
    client = await _client(settings)
    try:
        await _channel(client)
        client._policy_ids = like._policy_ids
        client._server_nonce = session.nonce  # what our signature has to cover
        client.uaclient.session.restore_authentication_token(ua.NodeId.from_string(session.token))
        await client.activate_session(username=client._username, password=client._password)
        return client, await client.uaclient.session.update_subscription(ask)
    except ua.UaError:
        client.disconnect_socket()
        return None
    except BaseException:
        client.disconnect_socket()
        raise


async def ended(client: Client) -> None:
    """The session is over, and with it its subscriptions."""
    try:
        await client.uaclient.close_session(True)
    finally:
        client.disconnect_socket()


async def _client(settings: OpcUaSettings) -> Client:
    client = Client(settings.url, timeout=settings.answer_s)
    client.name = client.description = "Millwright edge"
    client.session_timeout = round(1000 * max(60.0, settings.outage_s + 30))
    if settings.user:
        client.set_user(settings.user)
        client.set_password(settings.password() or "")
    if settings.security != "None":
        await _secure(client, settings)
    return client


async def renew(client: Client) -> None:
    """New keys for the channel."""
    await client.open_secure_channel(renew=True)
    client.uaclient.revolve_security_token()
    _ageless(client)


async def _channel(client: Client) -> None:
    await client.connect_socket()
    await client.send_hello()
    await client.open_secure_channel()
    _ageless(client)


def _ageless(client: Client) -> None:
    """Let the library not set the server's clock against ours: where that is behind, it takes every message that was under way at a renewal for too
    late, and drops the line. Keys that are over are thrown away by the monotonic clock even so."""
    client.uaclient.protocol._connection.security_token.CreatedAt = datetime(9000, 1, 1, tzinfo=UTC)


async def _secure(client: Client, s: OpcUaSettings) -> None:
    """Certificates: ours by its content, not by the name of its file; the server's only the one that is trusted."""
    ours, key, trusted = (_pem_or_der(path) for path in (s.certificate, s.key, s.server_certificate))
    certificate = await uacrypto.load_certificate(ours.path_or_content, ours.extension)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if uris := names.get_values_for_type(x509.UniformResourceIdentifier):
        client.application_uri = uris[0]  # servers compare it with the certificate
    known = await uacrypto.load_certificate(trusted.path_or_content, trusted.extension)
    mode = ua.MessageSecurityMode[s.mode]
    try:
        endpoints = await Client(s.url, timeout=s.answer_s).connect_and_get_server_endpoints()
    except (ua.UaError, AssertionError):
        endpoints = []  # it says nothing to whom it does not know: if it has another certificate, it will not understand us
    offered = Client.find_endpoint(endpoints, mode, SecurityPolicyBasic256Sha256.URI) if endpoints else None
    shown = uacrypto.x509_from_der(offered.ServerCertificate) if offered else known
    if shown != known:
        name = shown.fingerprint(hashes.SHA256()).hex() if shown else "none"
        raise ua.UaError(
            f"shows another certificate (SHA-256 {name}) than {s.server_certificate}: ask who runs it, and only then trust it by putting "
            "it into that file"
        )
    await client.set_security(SecurityPolicyBasic256Sha256, ours, key, server_certificate=trusted, mode=mode)


def _pem_or_der(path: Path | None) -> uacrypto.CertProperties:
    assert path is not None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}): correct the path of the certificate or key, or its rights") from error
    return uacrypto.CertProperties(content, "pem" if content.lstrip().startswith(b"-----BEGIN") else "der")


def remedy(error: BaseException, settings: OpcUaSettings) -> str:
    """What is wrong and what to do, for a person."""
    name = type(error).__name__
    if isinstance(error, (ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadIdentityTokenRejected, ua.uaerrors.BadIdentityTokenInvalid)):
        who = f"the user {settings.user}" if settings.user else "somebody without a name"
        return (
            f"does not let {who} in ({name}): correct user and the password in {settings.password_env or 'password_env'}, or allow it there"
        )
    refusals = (
        "BadSecurityChecksFailed",
        "BadCertificate",
        "BadSecurityPolicyRejected",
        "BadSecurityModeRejected",
        "BadApplicationSignature",
    )
    if name.startswith(refusals) or any(word in str(error) for word in refusals):
        return f"refuses our certificate {settings.certificate} ({name}): let the server trust it, or correct certificate, key and security"
    if isinstance(error, ua.UaError) and "No matching endpoints" in str(error):
        return f"does not offer security {settings.security} {settings.mode if settings.security != 'None' else ''}: set what it offers"
    if isinstance(error, ua.UaStatusCodeError):
        return f"says {name}: look at its log"
    if isinstance(error, ua.UaError):
        return str(error)
    if isinstance(error, GARBLED):
        if settings.security == "None":
            return "answers in a way that is not understood: look at its log, and at the url"
        return (
            f"answers in a way that is not understood; most often it refuses our certificate {settings.certificate}: let the server trust it, "
            "look at its log, and correct server_certificate if it was given a new one"
        )
    if isinstance(error, TimeoutError):
        return "does not answer: look at it and at the line to it, or correct the url"
    return f"cannot be reached ({name}: {error}): start it, or correct the url"
