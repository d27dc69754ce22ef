"""A tiny OpenID Connect issuer: discovery, keys, and the client credentials grant."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt

CLIENT = ("bob", "a client's secret")


class Issuer:
    """Serves on a port of this machine until closed.

    Args:
        folder: With ``jwt.key`` and ``jwt.jwks``.
    """

    def __init__(self, folder: Path) -> None:
        issuer = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                if self.path.endswith("/openid-configuration"):
                    self.answer(200, issuer.discovery())
                elif self.path == "/jwks":
                    keys = json.loads((folder / "jwt.jwks").read_text())
                    keys["keys"][0]["kid"] = "1"
                    self.answer(200, keys)
                else:
                    self.answer(200, {"sub": CLIENT[0]})

            def do_POST(self) -> None:
                issuer.asked.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                given = base64.b64encode(":".join(CLIENT).encode()).decode()
                # Clients percent-encode both parts (RFC 6749, section 2.3.1).
                sent = self.headers.get("Authorization", "").removeprefix("Basic ")
                if not _same(sent, given):
                    self.answer(401, {"error": "invalid_client"})
                    return
                now = int(time.time())
                claims = {"iss": issuer.url, "sub": CLIENT[0], "aud": "slim", "iat": now, "exp": now + 600}
                key = (folder / "jwt.key").read_text()
                token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "1"})
                self.answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": 600})

            def answer(self, status: int, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def _same(sent: str, given: str) -> bool:
    from urllib.parse import unquote_plus

    return unquote_plus(base64.b64decode(sent).decode()) == base64.b64decode(given).decode()
