#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Connections that stay open, for check.sh.

Usage: talk.py serve ADDRESS PORT   sends back what it hears
       talk.py ask ADDRESS PORT     for each line that it reads: opens one connection more, has every open one speak, and
                                    prints "ANSWERED of OPEN"; who did not answer is closed
"""
import os
import socket
import sys
import threading


def serve(listener):
    def answer(connection):
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass  # it has ended
        connection.close()

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answers(connection):
    word = os.urandom(16)
    try:
        connection.sendall(word)
        heard = b""
        while len(heard) < len(word) and (data := connection.recv(len(word) - len(heard))):
            heard += data
        return heard == word
    except OSError:
        return False


def ask(address):
    connections = []
    for _ in sys.stdin:
        try:
            connections.append(socket.create_connection(address, timeout=20))
        except OSError as error:
            print(f"talk: {error}", file=sys.stderr)
        good = [connection for connection in connections if answers(connection)]
        print(f"{len(good)} of {len(connections)}", flush=True)
        for connection in connections:
            if connection not in good:
                connection.close()
        connections = good


where = (sys.argv[2], int(sys.argv[3]))
if sys.argv[1] == "serve":
    serve(socket.create_server(where))
else:
    ask(where)
