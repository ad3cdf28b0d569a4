# SPDX-License-Identifier: Apache-2.0
"""The WSGI example under a server with one process and many threads."""

import argparse
import socketserver
from wsgiref import simple_server

from examples import wsgi_app


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(simple_server.WSGIRequestHandler):
    def log_message(self, format, *args):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--port', type=int, required=True)
    args = parser.parse_args()
    with simple_server.make_server(
        '127.0.0.1', args.port, wsgi_app.application, Server, Handler
    ) as server:
        server.serve_forever()


if __name__ == '__main__':
    main()
