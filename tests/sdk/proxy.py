"""A proxy in front of keyward that loses requests, answers, or nothing, and writes down what clients send.

A client is pointed at `<proxy>/<name>/<manner>`; each name has a record of its own. The manner says what becomes of the
first request under that name; all later ones pass.

    pass          it passes as well
    unavailable   it is answered 503 and never reaches the server
    lost          the connection is cut before the server hears of it
    unanswered    the server carries it out, and the connection is cut instead of the answer
"""

import http.client
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UNAVAILABLE = {
    "meta": {"requestId": "req_fromTheProxy"},
    "error": {
        "title": "Service Unavailable",
        "detail": "The proxy of the tests says so.",
        "status": 503,
        "type": "https://unkey.com/docs/errors/unkey/application/service_unavailable",
    },
}


class Quiet(ThreadingHTTPServer):
    """Clients may leave whenever they like."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Record:
    """What came under one name."""

    def __init__(self):
        self.requests = []  # (path, headers in lower case, body as text)
        self.forwarded = 0


class Proxy:
    """Runs on a port of its own until the program ends."""

    def __init__(self, host, port):
        self.records = {}
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                proxy.serve(self, host, port)

            def log_message(self, *_):
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name, manner):
        return f"http://127.0.0.1:{self.server.server_port}/{name}/{manner}"

    def record(self, name):
        with self.lock:
            return self.records.setdefault(name, Record())

    def serve(self, client, host, port):
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        _, name, manner, path = client.path.split("/", 3)
        headers = {header.lower(): value for header, value in client.headers.items()}
        record = self.record(name)
        with self.lock:
            is_first = not record.requests
            record.requests.append(("/" + path, headers, body.decode("utf-8")))
        if is_first and manner == "unavailable":
            return answer(client, 503, [("Content-Type", "application/json")], json.dumps(UNAVAILABLE).encode())
        if is_first and manner == "lost":
            return cut(client)
        with self.lock:
            record.forwarded += 1
        server = http.client.HTTPConnection(host, port, timeout=60)
        kept = {name: value for name, value in client.headers.items() if name.lower() not in ("host", "connection")}
        server.request("POST", "/" + path, body, kept)
        reply = server.getresponse()
        content = reply.read()
        server.close()
        if is_first and manner == "unanswered":
            return cut(client)
        dropped = ("transfer-encoding", "content-length", "connection")
        passed = [pair for pair in reply.getheaders() if pair[0].lower() not in dropped]
        return answer(client, reply.status, passed, content)


def answer(client, status, headers, content):
    client.send_response(status)
    for name, value in headers:
        client.send_header(name, value)
    client.send_header("Content-Length", str(len(content)))
    client.end_headers()
    client.wfile.write(content)


def cut(client):
    client.close_connection = True
    client.connection.shutdown(socket.SHUT_RDWR)
