"""SLIM's own client configuration, as users of SLIM have it: JSON or YAML, in the terms of our settings.

Nothing in it is left aside in silence: what slim-actors cannot honour is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from slim_actors.configfile import nearest, private
from slim_actors.endpoints import Endpoint
from slim_actors.errors import ConfigurationError
from slim_actors.files import read_text, to_path

__all__ = ["VARIABLE", "read_slim_config", "slim_name"]

VARIABLE = "SLIM_CLIENT_CONFIG"

_INLINE = "the SLIM client configuration"
_ENDPOINT_KEYS = ("endpoint", "tls", "auth")
_NOT_HONOURED = (
    "backoff",
    "buffer_size",
    "compression",
    "connect_timeout",
    "headers",
    "keepalive",
    "link_id",
    "metadata",
    "origin",
    "proxy",
    "rate_limit",
    "request_timeout",
    "require_header_mac",
    "server_name",
    "websocket_auth_query_param",
)
_TLS_KEYS = (
    "insecure",
    "insecure_skip_verify",
    "ca_file",
    "ca_source",
    "cert_file",
    "key_file",
    "source",
    "include_system_ca_certs_pool",
    "tls_version",
)
_TLS_NOT_HONOURED = ("ca_pem", "cert_pem", "key_pem", "reload_interval")
_AUTH_KINDS = ("basic", "jwt", "static_jwt", "oidc", "none")
_DEFAULT_DURATIONS = ("1h", "60m", "3600s", 3600)


def read_slim_config(given: str) -> dict[str, Any]:
    """Give the settings that a SLIM client configuration stands for.

    Args:
        given: The path of a file (``.json``, ``.yaml`` or ``.yml``), or JSON text itself. Paths in a file are
            relative to it. Of a whole SLIM configuration (``services:``) its one client counts.
            ``${env:NAME}`` and ``${file:PATH}`` are filled in, as SLIM does.

    Raises:
        ConfigurationError: It cannot be read, has an unknown key, or asks for something that slim-actors
            cannot honour.
    """
    name, path = slim_name(given), None
    try:
        if name == _INLINE:
            data = _json(given, name)
        else:
            path = to_path(given)
            text = read_text(path, "SLIM client configuration")
            data = _yaml(text, path) if path.suffix in (".yaml", ".yml") else _json(text, name)
        return _Reader(name, path).read(data)
    except RecursionError:
        raise ConfigurationError(f"{name} is nested too deep.") from None


def slim_name(given: str) -> str:
    """Say where such a configuration is, without what is in it."""
    return _INLINE if given.lstrip().startswith("{") else given


class _Reader(Struct, frozen=True):
    name: str
    path: Path | None

    def read(self, data: Any) -> dict[str, Any]:
        client = self._mapping(self._filled(self._only_client(data)), "")
        self._check_keys(client, _ENDPOINT_KEYS, _NOT_HONOURED, "")
        endpoint = client.get("endpoint")
        if not isinstance(endpoint, str) or not endpoint:
            raise ConfigurationError(f"{self.name} has no endpoint.")
        # Before any sentence says it: there may be a secret in a wrong one.
        try:
            Endpoint.parse(endpoint)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None
        secure = endpoint.startswith(("https://", "wss://"))
        settings = self._tls(self._mapping(client.get("tls"), "tls"), endpoint, secure=secure)
        literal = self._mapping(self._mapping(self._only_client(data), "").get("auth"), "auth")
        settings |= self._auth(self._mapping(client.get("auth"), "auth"), literal)
        return {"endpoint": endpoint, **settings}

    def _tls(self, tls: Mapping[str, Any], endpoint: str, *, secure: bool) -> dict[str, Any]:
        self._check_keys(tls, _TLS_KEYS, _TLS_NOT_HONOURED, "tls.")
        insecure = self._flag(tls, "insecure", default=False)
        if secure == insecure and not endpoint.startswith("unix:"):
            raise ConfigurationError(
                f"{self.name} contradicts itself: the endpoint is {endpoint}, and tls.insecure is "
                f"{str(insecure).lower()}; it is true for http:// and ws://, and false for https:// and wss://."
            )
        if self._flag(tls, "insecure_skip_verify", default=False):
            raise self._no("tls.insecure_skip_verify", "give the CA in tls.ca_file")
        if tls.get("tls_version") not in (None, "tls1.3"):
            raise self._no(f"tls.tls_version {tls['tls_version']}", "TLS 1.3 is used")
        ca = self._source(tls, "ca_source", {"path": "ca_file"})
        own = self._source(tls, "source", {"cert": "cert_file", "key": "key_file"})
        # By default SLIM believes the system's CAs besides; here a CA that is given is the only one.
        if "ca_file" in ca and tls.get("include_system_ca_certs_pool"):
            raise self._no("tls.include_system_ca_certs_pool with a CA of one's own", "only that is trusted")
        found = {
            "tls_ca": ca.get("ca_file"),
            "tls_cert": own.get("cert_file"),
            "tls_key": own.get("key_file"),
        }
        settings: dict[str, Any] = {key: self._path(value) for key, value in found.items() if value}
        return settings | ({"insecure": True} if insecure else {})

    def _source(self, tls: Mapping[str, Any], key: str, names: dict[str, str]) -> dict[str, Any]:
        """Read certificates in the newer form, ``{type: file, …}``, or in the older one."""
        source = dict(self._mapping(tls.get(key), f"tls.{key}"))
        older = {old: tls[old] for old in names.values() if tls.get(old)}
        kind = source.pop("type", None if source else "none")
        if kind is None:
            raise ConfigurationError(f"{self.name} has tls.{key} without a type: give type: file.")
        if kind not in ("file", "none"):
            raise self._no(f"tls.{key} of type {kind}", "give type: file")
        self._check_keys(source, tuple(names) if kind == "file" else (), (), f"tls.{key}.")
        if kind == "none":
            return older
        if older:
            raise ConfigurationError(f"{self.name} has both tls.{key} and tls.{next(iter(older))}: give one.")
        missing = [new for new in names if not source.get(new)]
        if missing:
            raise ConfigurationError(f"{self.name}: tls.{key}.{missing[0]} is missing: a file.")
        return {names[new]: value for new, value in source.items()}

    def _auth(self, auth: Mapping[str, Any], literal: Mapping[str, Any]) -> dict[str, Any]:
        kind = auth.get("type")
        if kind is None and len(auth) == 1:
            # The older form: auth: {basic: {…}}.
            (kind,) = auth
            auth, literal = (self._mapping(one.get(kind), f"auth.{kind}") for one in (auth, literal))
        if not auth or kind == "none":
            return {}
        if kind == "spire":
            raise self._no("auth of type spire", "use basic, jwt, static_jwt or oidc")
        if not isinstance(kind, str):
            # Not shown: a secret may be in it.
            raise ConfigurationError(f"{self.name}: auth.type is missing, or is no text.")
        if kind not in _AUTH_KINDS:
            raise ConfigurationError(f"{self.name}: {kind!r} is no type of auth{nearest(kind, _AUTH_KINDS)}")
        values = {key: value for key, value in auth.items() if key != "type" and value is not None}
        for secret in ("password", "client_secret"):
            if self.path is not None and secret in values and "${" not in str(literal.get(secret, "")):
                private(self.path, f"auth.{secret}")
        read = {"basic": self._basic, "static_jwt": self._static, "jwt": self._jwt, "oidc": self._oidc}
        return read[kind](values)

    def _basic(self, auth: dict[str, Any]) -> dict[str, Any]:
        self._check_keys(auth, ("username", "password"), (), "auth.")
        return self._texts(auth, {"username": "node_user", "password": "node_password"})

    def _static(self, auth: dict[str, Any]) -> dict[str, Any]:
        # How long SLIM keeps what it read: here a token is read again when it is needed.
        auth.pop("duration", None)
        self._check_keys(auth, ("file",), (), "auth.")
        if not auth.get("file"):
            raise ConfigurationError(f"{self.name}: auth.file is missing: the file with the token.")
        return {"node_jwt": self._path(auth["file"])}

    def _jwt(self, auth: dict[str, Any]) -> dict[str, Any]:
        self._check_keys(auth, ("claims", "duration", "key"), (), "auth.")
        if auth.pop("duration", "1h") not in _DEFAULT_DURATIONS:
            raise self._no("auth.duration other than 1h", "leave it out")
        key = dict(self._mapping(auth.get("key"), "auth.key"))
        if "encoding" in key:
            key = {"type": "encoding", **self._mapping(key["encoding"], "auth.key.encoding")}
        data = key.get("key")
        file = key.get("file") or (data.get("file") if isinstance(data, dict) else None)
        if key.get("type") != "encoding" or not isinstance(file, str):
            raise self._no(
                "an auth.key other than a private key in a file", "give type: encoding, and its file"
            )
        if key.get("format", "pem") != "pem" or str(key.get("algorithm", "")).startswith(("HS", "PS")):
            raise self._no("this auth.key", "use a key for ES256, ES384, RS256 or EdDSA in PEM form")
        claims = self._mapping(auth.get("claims"), "auth.claims")
        names = {
            "audience": "node_audience", "audiences": "node_audience", "aud": "node_audience",
            "issuer": "node_issuer", "iss": "node_issuer", "subject": "node_subject", "sub": "node_subject",
        }  # fmt: skip
        self._check_keys(claims, tuple(names), ("custom_claims",), "auth.claims.")
        given = {key: value for key, value in claims.items() if value is not None}
        audiences = {key: given.pop(key) for key in list(given) if names[key] == "node_audience"}
        found: dict[str, Any] = self._texts(given, names, "auth.claims.")
        for claim, audience in audiences.items():
            several = audience if isinstance(audience, list) else [audience]
            if not several or not all(isinstance(one, str) and one for one in several):
                raise ConfigurationError(
                    f"{self.name}: auth.claims.{claim} must be a text or a list of texts."
                )
            found["node_audience"] = tuple(several)
        return {"node_jwt": self._path(file), **found}

    def _oidc(self, auth: dict[str, Any]) -> dict[str, Any]:
        names = {
            "issuer_url": "node_oidc", "client_id": "node_user", "client_secret": "node_password",
            "audience": "node_audience", "scope": "node_scope",
        }  # fmt: skip
        others = ("refresh_token", "refresh_token_file", "access_token_file", "timeout", "jwks_ttl",
                  "claim_cache_ttl", "policy")  # fmt: skip
        self._check_keys(auth, tuple(names), others, "auth.")
        if "issuer_url" not in auth:
            raise ConfigurationError(f"{self.name}: auth.issuer_url is missing.")
        found: dict[str, Any] = self._texts(auth, names)
        if "node_audience" in found:
            found["node_audience"] = (found["node_audience"],)
        return found

    def _only_client(self, data: Any) -> Any:
        if not isinstance(data, dict) or "services" not in data:
            return data
        clients: list[Any] = []
        for service in self._mapping(data["services"], "services").values():
            plane = self._mapping(self._mapping(service, "services").get("dataplane"), "dataplane")
            some = plane.get("clients") or []
            if not isinstance(some, list):
                raise ConfigurationError(f"{self.name}: dataplane.clients must be a list.")
            clients += some
        if len(clients) != 1:
            raise ConfigurationError(f"{self.name} has {len(clients)} clients, but must have one.")
        return clients[0]

    def _check_keys(
        self, values: Mapping[str, Any], known: tuple[str, ...], others: tuple[str, ...], prefix: str
    ) -> None:
        for key, value in values.items():
            if key in others and value is not None:
                raise self._no(f"{prefix}{key}", "remove it")
            if key not in (*known, *others):
                raise ConfigurationError(
                    f"{self.name} has the unknown key {prefix}{key}{nearest(key, known)}"
                )

    def _mapping(self, value: Any, key: str) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value):
            raise ConfigurationError(f"{self.name}: {key or 'what it holds'} must be a mapping of names.")
        return value

    def _flag(self, values: Mapping[str, Any], key: str, *, default: bool) -> bool:
        value = values.get(key, default)
        if not isinstance(value, bool):
            raise ConfigurationError(f"{self.name}: tls.{key} is {value!r}, but must be true or false.")
        return value

    def _texts(
        self, values: Mapping[str, Any], names: dict[str, str], prefix: str = "auth."
    ) -> dict[str, str]:
        for key, value in values.items():
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{self.name}: {prefix}{key} must be a text.")
        return {names[key]: value for key, value in values.items()}

    def _path(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ConfigurationError(f"{self.name}: {value!r} is no path.")
        path = to_path(value)
        return str(path if self.path is None else self.path.absolute().parent / path)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        return re.sub(r"\$\{(env|file):([^}]*)\}", self._fill, value) if isinstance(value, str) else value

    def _fill(self, match: re.Match[str]) -> str:
        if match[1] == "env":
            if match[2] not in os.environ:
                raise ConfigurationError(f"{self.name} wants the environment variable {match[2]}: set it.")
            return os.environ[match[2]]
        try:
            return Path(self._path(match[2])).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise ConfigurationError(
                f"{self.name} wants the file {match[2]}, which cannot be read."
            ) from None

    def _no(self, what: str, instead: str) -> ConfigurationError:
        return ConfigurationError(f"{self.name} has {what}, which slim-actors cannot honour: {instead}.")


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} is no JSON, as a SLIM client configuration is: {error}.") from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{path} is YAML, which needs an extra: pip install 'slim-actors[yaml]', or give JSON."
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {_why(error)}.") from None
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 (a date that is none, a number without digits: each raises another thing)
        raise ConfigurationError(f"{path} has a value that YAML cannot read.") from None


def _why(error: Exception) -> str:
    """Say what is wrong and where, without the text around it: a secret may be in that."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    # The names of these may be the beginning of a secret that was meant as a text.
    what = re.sub(r"\b(alias|tag|handle)\b.*", r"\1", problem or "it has a character that is not allowed")
    return f"{what} (line {mark.line + 1}, column {mark.column + 1})" if mark else what
