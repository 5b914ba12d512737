#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A gRPC server with the standard health service, and a client that asks it as the kubelet's gRPC probe does.

Usage: grpc_probe.py serve PORT            prints "listening", serves until it is killed
       grpc_probe.py check ADDRESS PORT    prints SERVING, or the status code of the call (exit 1)

Messages have one field, so they are written by hand: no generated code, no package beyond grpc itself. (grpc takes a
module with the name grpc_health for one of its own; do not call this file so.)
"""
import sys
from concurrent import futures

import grpc  # Debian: python3-grpcio

SERVICE = "grpc.health.v1.Health"
REQUEST = b""  # HealthCheckRequest{service: ""}: the server as a whole
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
DEADLINE_S = 10


def serve(port):
    def check(request, context):
        if request != REQUEST:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return SERVING

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    handler = grpc.unary_unary_rpc_method_handler(check)  # no serialisers: bytes
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
    if server.add_insecure_port(f"[::]:{port}") != port:
        sys.exit(f"port {port} is taken")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def check(address, port):
    host = f"[{address}]" if ":" in address else address
    with grpc.insecure_channel(f"{host}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = channel.unary_unary(f"/{SERVICE}/Check")(REQUEST, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            print(error.code().name)
            return 1
    print("SERVING" if answer == SERVING else f"unexpected {answer!r}")
    return 0 if answer == SERVING else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        sys.exit(check(sys.argv[2], int(sys.argv[3])))
