# SPDX-License-Identifier: Apache-2.0
# Ends of the connections between the two guests: a server, and clients that check every byte.
#
# talk.py serve PORT                       both families; counts what it accepts in the file accepted-PORT
# talk.py transfer HOST PORT BYTES         BYTES of data to the server and as many back, at the same time
# talk.py hold HOST PORT NAME              messages to and fro until the file NAME.stop is there
# talk.py load NAME HOST PORT [HOST PORT]  one connection after another to each, for ever
# Files are in the working directory: NAME.count has the rounds done (of load: one number for each HOST).
# A client's first line says what it wants: "BYTES\n" for a transfer, "echo\n" for everything back.
import hashlib, os, random, socket, sys, threading, time

# What the capture of the cable is searched for.
MARKER = b"plaintext-of-the-pair-must-stay-within-its-node "


def data(size):
    """Random bytes with the marker in every kilobyte."""
    source = random.Random(os.urandom(8))
    stream = bytearray()
    while len(stream) < size:  # a call gives less than 256 MiB
        stream += source.randbytes(min(size - len(stream), 1 << 20))
    for at in range(0, size - len(MARKER) + 1, 1000):
        stream[at : at + len(MARKER)] = MARKER
    return bytes(stream)


def write_file(name, text):
    with open(name + ".new", "w") as file:
        file.write(text)
    os.rename(name + ".new", name)


def read_exactly(connection, size):
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError(f"{size} bytes are missing")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def both_ways(connection, out, incoming):
    """Sends `out` and half-closes while reading; gives what came, which must be `incoming` bytes and the end."""
    failure = []

    def send():
        try:
            connection.sendall(out)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            failure.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    came = read_exactly(connection, incoming)
    if connection.recv(1):
        raise ValueError("more bytes than were sent")
    sender.join()
    if failure:
        raise failure[0]
    return came


def serve_one(connection):
    with connection:
        connection.settimeout(120)
        line = b""
        while not line.endswith(b"\n"):
            line += read_exactly(connection, 1)
        if line == b"echo\n":
            while part := connection.recv(65536):
                connection.sendall(part)
            return
        size = int(line)
        answer = data(size)
        sender = threading.Thread(target=connection.sendall, args=(answer,))
        sender.start()
        came = read_exactly(connection, size)
        if connection.recv(1):
            raise ValueError("more bytes than were sent")
        sender.join()
        # The server's word on both directions; the client compares.
        connection.sendall(hashlib.sha256(came).digest() + hashlib.sha256(answer).digest())


def serve(port):
    accepted = 0
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    write_file(f"accepted-{port}", "0\n")
    while True:
        connection, _ = listener.accept()
        accepted += 1
        write_file(f"accepted-{port}", f"{accepted}\n")
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def transfer(host, port, size):
    begin = time.monotonic()
    out = data(size)
    with socket.create_connection((host, port), timeout=120) as connection:
        came = both_ways(connection, b"%d\n" % size + out, size + 64)
    wanted = hashlib.sha256(out).digest() + hashlib.sha256(came[:size]).digest()
    if came[size:] != wanted:
        sys.exit("the digests differ")
    print(f"{size} bytes each way, sha256 equal at both ends, {time.monotonic() - begin:.1f} s")


def hold(host, port, name):
    rounds = 0
    with socket.create_connection((host, port), timeout=60) as connection:
        connection.sendall(b"echo\n")
        while not os.path.exists(name + ".stop"):
            message = MARKER + b"%d" % rounds
            connection.sendall(message)
            if read_exactly(connection, len(message)) != message:
                sys.exit("the echo differs")
            rounds += 1
            write_file(name + ".count", f"{rounds}\n")
            time.sleep(0.1)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1):
            sys.exit("more bytes than were sent")
    print(f"{rounds} messages")


def load(name, targets):
    counts = [0] * len(targets)

    def one(index):
        while True:
            try:
                with socket.create_connection(targets[index], timeout=3) as connection:
                    if both_ways(connection, b"echo\n" + MARKER, len(MARKER)) == MARKER:
                        counts[index] += 1
            except (OSError, EOFError):
                pass  # whoever serves it may be dead for now
            time.sleep(0.3)

    for index in range(len(targets)):
        threading.Thread(target=one, args=(index,), daemon=True).start()
    while True:
        write_file(name + ".count", " ".join(map(str, counts)) + "\n")
        time.sleep(0.2)


command, arguments = sys.argv[1], sys.argv[2:]
if command == "serve":
    serve(int(arguments[0]))
elif command == "transfer":
    transfer(arguments[0], int(arguments[1]), int(arguments[2]))
elif command == "hold":
    hold(arguments[0], int(arguments[1]), arguments[2])
elif command == "load":
    load(arguments[0], [(arguments[i], int(arguments[i + 1])) for i in range(1, len(arguments), 2)])
else:
    sys.exit(f"talk: {command}?")
