"""A mail server on a free port of this machine that writes down what it is sent.

mail_server.py plain|starttls|tls PASSWORD

Writes its port and then one line of JSON for each mail. The certificate is in the environment. Ends when its
input does.
"""

import asyncio
import email
import email.policy
import json
import logging
import os
import ssl
import sys
import tempfile
import warnings

from aiosmtpd.smtp import SMTP, AuthResult


class Desk:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = [part for part in mail.walk() if not part.is_multipart()]
        text = {part.get_content_type(): part.get_content() for part in parts}
        print(
            json.dumps(
                {
                    "is_secure": session.ssl is not None or MODE == "tls",
                    "to": envelope.rcpt_tos,
                    "subject": mail["subject"],
                    "from": mail["from"],
                    "bcc": mail["bcc"],
                    "date": mail["date"],
                    "message_id": mail["message-id"],
                    "text": text.get("text/plain", "").replace("\r\n", "\n"),
                    "html": text.get("text/html"),
                }
            ),
            flush=True,
        )
        return "250 taken"


def known(server, session, envelope, mechanism, data):
    is_known = data.login == b"alerts" and data.password == PASSWORD.encode()
    # The answer is left to the library.
    return AuthResult(success=is_known, handled=False)


def context():
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(os.environ["CERTIFICATE"] + os.environ["CERTIFICATE_KEY"])
        file.flush()
        found.load_cert_chain(file.name)
    return found


async def serve():
    options = {"hostname": "localhost"}
    if MODE != "plain":
        options |= {"authenticator": known, "auth_required": True}
    if MODE == "starttls":
        options |= {"tls_context": context(), "require_starttls": True}
    if MODE == "tls":
        # The library does not see that the connection is secure from the start.
        options |= {"auth_require_tls": False}
    loop = asyncio.get_running_loop()
    secure = context() if MODE == "tls" else None
    server = await loop.create_server(lambda: SMTP(Desk(), **options), "127.0.0.1", 0, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


MODE, PASSWORD = sys.argv[1:]
# It warns of what is wanted here.
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
asyncio.run(serve())
