"""What a node may ask of those who connect to it, besides a client certificate."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

from slim_actors.endpoints import is_this_machine
from slim_actors.errors import ConfigurationError
from slim_actors.files import to_path
from slim_actors.identity import Jwt, StaticJwt, audience_given, check_audience, to_names

__all__ = ["Auth", "Basic", "Oidc", "TokenCheck"]


@frozen
class Basic:
    """A user name and a password on the connection to the node (RFC 7617). Use it with TLS only.

    Raises:
        ConfigurationError: One of the two is missing.

    Example:
        >>> Basic("agents", "a password")
        Basic(user='agents')
    """

    user: str
    password: str = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.user or not self.password:
            raise ConfigurationError("The node's user and password must both be given.")


@frozen
class Oidc:
    """A token from an OpenID Connect issuer on the connection to the node. Use it with TLS only.

    An agent gets its tokens at the issuer by the client credentials grant (RFC 6749, section 4.4). A node
    believes the issuer's tokens whose audience it is; it needs no ``client_id``.

    Args:
        issuer: The issuer's URL: ``https://``, or ``http://`` on this machine.
        client_id: Who logs in there.
        client_secret: Its secret.
        audience: What the tokens must be for; a node needs it.
        scope: What to ask the issuer for; some want it.

    Raises:
        ConfigurationError: The URL is none of these, ``client_id`` or ``client_secret`` comes alone, or the
            audience is not one word.

    Example:
        >>> Oidc("https://login.example.com", client_id="bob", client_secret="…", audience="slim")
        Oidc(issuer='https://login.example.com', client_id='bob', audience='slim', scope='')
    """

    issuer: str
    client_id: str = field(default="", kw_only=True)
    client_secret: str = field(default="", kw_only=True, repr=False)
    audience: str = field(default="", converter=check_audience, kw_only=True)
    scope: str = field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not _keeps_secrets(self.issuer):
            raise ConfigurationError(
                f"The OIDC issuer is {self.issuer!r}, but must be an https:// URL "
                "(http:// is for this machine alone)."
            )
        if bool(self.client_id) != bool(self.client_secret):
            raise ConfigurationError("The OIDC client's id and secret must both be given.")


def _keeps_secrets(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(host)))


@frozen
class TokenCheck:
    """The tokens that a node believes: for a node that shows none itself.

    Args:
        trust: File with the keys to believe, as in `Jwt`. Read when the node starts.
        audience: What the tokens must be for.
        issuer: Who must have issued them; anyone that the keys vouch for, if empty.

    Example:
        >>> TokenCheck("issuer.jwks", audience="slim")
        TokenCheck(trust=PosixPath('issuer.jwks'), audience=('slim',), issuer='')
    """

    trust: Path = field(converter=to_path)
    audience: tuple[str, ...] = field(converter=to_names, validator=audience_given, kw_only=True)
    issuer: str = field(default="", kw_only=True)


Auth = Basic | Jwt | StaticJwt | Oidc
"""What an agent or caller shows to the node."""
