"""A gRPC server that answers with its Pod's name."""

import os
import sys
import threading
from concurrent import futures

import grpc
from lingering import NAME, on_sigterm

handler = grpc.unary_unary_rpc_method_handler(lambda request, context: NAME)
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("judge.Name", {"Ask": handler}),))
server.add_insecure_port(f"{os.environ['POD_IP']}:{sys.argv[1]}")
server.start()
on_sigterm()
threading.Event().wait()
