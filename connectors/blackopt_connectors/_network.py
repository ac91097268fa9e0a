"""Which addresses a connector may talk to: the address is checked, and the checked address is the one
connected to.

A campaign file can come from a repository that many people write to, so a name in it must not become a way
to reach a cloud's metadata service or a neighbour's database (server-side request forgery).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import TypeAlias

from blackopt.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)
"""Metadata services of clouds: they hand out credentials, so no option opens them."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def refusal(address: Address, networks: Sequence[Network], *, encrypted: bool) -> tuple[str, str] | None:
    """Why an address may not be used and what to do about it; None if it may.

    Loopback and the listed networks are allowed, with or without TLS; public addresses only with TLS;
    link-local, multicast, unspecified, reserved and metadata addresses never.
    """
    plain = _plain(address)
    if (
        plain in METADATA
        or plain.is_link_local
        or plain.is_multicast
        or plain.is_unspecified
        or (plain.is_reserved and not plain.is_loopback)
    ):
        return (
            f"{address}: link-local, metadata, multicast and reserved addresses are never reached",
            "use the address of the module itself",
        )
    if plain.is_loopback or any(plain in network for network in networks):
        return None
    if not plain.is_global:
        return (
            f"{address} is private, and a private network is reached only where the campaign lists it",
            f'add `networks: ["{plain}/{plain.max_prefixlen}"]` (or a wider network) beside the url',
        )
    if not encrypted:
        return (
            f"{address} is public, and http:// would show artifacts and answers to everybody on the way",
            "use https://",
        )
    return None


def resolve(
    host: str, port: int, networks: Sequence[Network], *, encrypted: bool
) -> list[tuple[int, tuple[object, ...]]]:
    """(family, socket address) of every address of a host, resolved once.

    Raises:
        OSError: the name does not resolve.
        ConfigurationError: one of its addresses may not be used; then none is.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"not a host name: {error}") from None
    for *_, address in found:
        refused = refusal(
            ipaddress.ip_address(str(address[0]).partition("%")[0]), networks, encrypted=encrypted
        )
        if refused:
            raise ConfigurationError(
                f"the address of {host} is blocked",
                where=f"{host}:{port}",
                why=refused[0],
                safe="nothing was sent",
                next_step=refused[1],
            )
    return [(int(family), address) for family, _, _, _, address in found]
