"""An HTTP server that answers with its Pod's name."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lingering import NAME, on_sigterm


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(NAME)))
        self.end_headers()
        self.wfile.write(NAME)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Connections wait to be accepted rather than to be made again.
    request_queue_size = 512


on_sigterm()
Server((os.environ["POD_IP"], int(sys.argv[1])), Handler).serve_forever()
