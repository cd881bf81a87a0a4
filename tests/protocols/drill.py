"""gRPC and WebSockets through Tidegate, spoken by others' implementations. See `run`."""

import asyncio
import concurrent.futures
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect
from websockets.sync.server import serve

PATIENCE = 20
SERVICE = "drill.Drill"


# Origins


def unary(request, context):
    if request == b"missing":
        context.set_trailing_metadata((("x-why", "gone"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"slow":
        threading.Event().wait(PATIENCE)
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-asked", "none")),))
    context.set_trailing_metadata((("x-trailing", str(len(request))),))
    return request


def collect(requests, context):
    return b"".join(requests)


def spread(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def both(requests, context):
    for request in requests:
        yield request.upper()


def grpc_server(credentials=None):
    handlers = grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Collect": grpc.stream_unary_rpc_method_handler(collect),
            "Spread": grpc.unary_stream_rpc_method_handler(spread),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        },
    )
    options = [("grpc.max_receive_message_length", 16 << 20)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=options)
    server.add_generic_rpc_handlers((handlers,))
    if credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def websocket_server():
    def echo(socket):
        for message in socket:
            socket.send(message)

    server = serve(echo, "127.0.0.1", 0, max_size=8 << 20)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.socket.getsockname()[1]


# Tidegate


class Tidegate:
    def __init__(self, binary, folder, pools):
        text = f"""
[server]
workers = 2
state_dir = "{folder}/state"
[admin]
address = "127.0.0.1:0"
[log]
access = false
[[listener]]
name = "plain"
address = "127.0.0.1:0"
[[listener]]
name = "tls"
address = "127.0.0.1:0"
tls = {{ certificates = [{{ cert = "{folder}/site.pem", key = "{folder}/site.key" }}] }}
"""
        for name, keys in pools.items():
            text += f'[[pool]]\nname = "{name}"\n{keys}\n[[route]]\nhost = ["{name}.localhost"]\npool = "{name}"\n'
        config = folder / "tidegate.toml"
        config.write_text(text)
        self.process = subprocess.Popen([binary, "-c", config], stderr=subprocess.PIPE, text=True)
        self.ports, self.said = {}, []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r':(\d+)/? \(listener "(\w+)"', line):
                self.ports[found[2]] = int(found[1])
            if found := re.match(r"admin on http://(\S+)", line):
                self.admin = found[1]
                break
        else:
            sys.exit("Tidegate did not start:\n" + "".join(self.said))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def busy(self):
        """Exchanges in flight and in queues, over all pools."""
        from json import load
        from urllib.request import urlopen

        status = load(urlopen(f"http://{self.admin}/status", timeout=PATIENCE))
        waiting = sum(pool.get("waiting", 0) for pool in status["pools"])
        return waiting + sum(row["in_flight"] for pool in status["pools"] for row in pool["endpoints"])


# gRPC


def check(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")


def fails(what, code, call):
    try:
        call()
    except grpc.RpcError as error:
        check(what, error.code(), code)
        return error
    sys.exit(f"{what}: no failure")


def grpc_calls(channel):
    """All four kinds of calls, large ones, many at once, and what fails; how many there were."""
    calls = 0
    one = channel.unary_unary(f"/{SERVICE}/Unary")
    answer, call = one.with_call(b"hello", metadata=(("x-asked", "yes"),), timeout=PATIENCE)
    check("unary", answer, b"hello")
    check("initial metadata", dict(call.initial_metadata())["x-initial"], "yes")
    check("trailing metadata", dict(call.trailing_metadata())["x-trailing"], "5")
    large = b"x" * (3 << 20)
    check("3 MiB both ways", one(large, timeout=PATIENCE) == large, True)
    many = [one.future(b"%d" % number, timeout=PATIENCE) for number in range(300)]
    check("300 at once", [call.result() for call in many], [b"%d" % number for number in range(300)])
    gathered = channel.stream_unary(f"/{SERVICE}/Collect")((b"%d," % n for n in range(500)), timeout=PATIENCE)
    check("client streams", gathered, b"".join(b"%d," % n for n in range(500)))
    spread = list(channel.unary_stream(f"/{SERVICE}/Spread")(b"500", timeout=PATIENCE))
    check("server streams", spread, [b"%d" % n for n in range(500)])

    turn = threading.Semaphore(1)

    def questions():
        for number in range(200):
            turn.acquire()
            yield b"ask %d" % number

    heard = []
    for answer in channel.stream_stream(f"/{SERVICE}/Both")(questions(), timeout=PATIENCE):
        # The next question is only asked when this one is answered.
        heard.append(answer)
        turn.release()
    check("both stream, in turn", heard, [b"ASK %d" % number for number in range(200)])
    calls += 306

    error = fails("a failure of the server", grpc.StatusCode.NOT_FOUND, lambda: one(b"missing", timeout=PATIENCE))
    check("its words", error.details(), "no such thing")
    check("its trailers", dict(error.trailing_metadata()).get("x-why"), "gone")
    fails("a deadline", grpc.StatusCode.DEADLINE_EXCEEDED, lambda: one(b"slow", timeout=0.3))
    running = channel.stream_stream(f"/{SERVICE}/Both")(iter(threading.Event().wait, True), timeout=PATIENCE)
    running.cancel()
    fails("a cancelled call", grpc.StatusCode.CANCELLED, lambda: next(running))
    return calls + 3


def channel_to(gate, name, root):
    """Both ways to a pool: over TLS, and plain by prior knowledge."""
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.default_authority", f"{name}.localhost")]
    tls = options + [("grpc.ssl_target_name_override", f"{name}.localhost")]
    credentials = grpc.ssl_channel_credentials(root)
    yield "TLS", grpc.secure_channel(f"127.0.0.1:{gate.ports['tls']}", credentials, options=tls)
    yield "plain", grpc.insecure_channel(f"127.0.0.1:{gate.ports['plain']}", options=options)


# WebSockets


def websocket_http1(gate, name, context):
    """Text, a large message, a ping and an orderly end over HTTP/1.1."""
    listener, scheme = ("tls", "wss") if context else ("plain", "ws")
    raw = socket.create_connection(("127.0.0.1", gate.ports[listener]), PATIENCE)
    keys = dict(ssl=context, server_hostname=f"{name}.localhost") if context else {}
    with connect(f"{scheme}://{name}.localhost/", sock=raw, max_size=8 << 20, **keys) as client:
        client.send("hello")
        check("text", client.recv(PATIENCE), "hello")
        large = b"x" * (1 << 20)
        client.send(large)
        check("1 MiB", client.recv(PATIENCE) == large, True)
        check("a pong", client.ping().wait(PATIENCE), True)
    check("the end", client.close_code, 1000)


class Stream:
    """One extended CONNECT (RFC 8441) on a connection of its own."""

    def __init__(self, gate, name, context):
        raw = socket.create_connection(("127.0.0.1", gate.ports["tls"]), PATIENCE)
        self.socket = context.wrap_socket(raw, server_hostname=f"{name}.localhost")
        check("ALPN", self.socket.selected_alpn_protocol(), "h2")
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http.initiate_connection()
        self.flush()
        self.bytes, self.status, self.ended = b"", None, False
        while not self.http.remote_settings.enable_connect_protocol:
            self.read()
        self.id = self.http.get_next_available_stream_id()
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/")]
        head += [(":authority", f"{name}.localhost"), ("sec-websocket-version", "13")]
        self.http.send_headers(self.id, head)
        self.flush()
        while self.status is None:
            self.read()

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def read(self):
        got = self.socket.recv(65536)
        if not got:
            sys.exit("the connection ended")
        for event in self.http.receive_data(got):
            if isinstance(event, h2.events.ResponseReceived):
                self.status = int(dict(event.headers)[b":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.bytes += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended = True
        self.flush()

    def say(self, opcode, payload):
        left = Frame(opcode, payload).serialize(mask=True)
        while left:
            room = min(self.http.local_flow_control_window(self.id), self.http.max_outbound_frame_size)
            if room == 0:
                self.read()
                continue
            self.http.send_data(self.id, left[:room])
            self.flush()
            left = left[room:]

    def hear(self):
        """The next frame."""
        while True:
            parsing = Frame.parse(self.exactly(), mask=False)
            try:
                next(parsing)
            except StopIteration as done:
                return done.value

    def exactly(self):
        def read_exact(length):
            while len(self.bytes) < length:
                self.read()
            taken, self.bytes = self.bytes[:length], self.bytes[length:]
            return taken
            yield

        return read_exact


def websocket_http2(gate, name, context):
    """The same over HTTP/2."""
    stream = Stream(gate, name, context)
    check("granted", stream.status, 200)
    stream.say(Opcode.TEXT, b"hello")
    check("text", stream.hear().data, b"hello")
    large = b"x" * (1 << 20)
    stream.say(Opcode.BINARY, large)
    heard = b""
    while len(heard) < len(large):
        heard += stream.hear().data
    check("1 MiB", heard == large, True)
    stream.say(Opcode.PING, b"?")
    check("a pong", stream.hear().opcode, Opcode.PONG)
    stream.say(Opcode.CLOSE, (1000).to_bytes(2, "big"))
    check("the end", stream.hear().opcode, Opcode.CLOSE)
    stream.http.end_stream(stream.id)
    stream.flush()
    while not stream.ended:
        stream.read()


def certificate(folder, names):
    alternatives = ",".join(f"DNS:{name}" for name in names)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=drill", "-addext", f"subjectAltName={alternatives}"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-keyout", folder / "site.key", "-out", folder / "site.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return (folder / "site.key").read_bytes(), (folder / "site.pem").read_bytes()


def main(binary):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-protocols-"))
    names = ["calls", "sealed", "gone", "sockets"]
    key, root = certificate(folder, [f"{name}.localhost" for name in names])
    plain, plain_port = grpc_server()
    sealed, sealed_port = grpc_server(grpc.ssl_server_credentials([(key, root)]))
    sockets, sockets_port = websocket_server()
    to = 'endpoints = [{{ address = "127.0.0.1:{}" }}]\n'
    seal = f'tls = {{ ca = "{folder}/site.pem", server_name = "sealed.localhost" }}'
    gate = Tidegate(
        binary,
        folder,
        {
            "calls": to.format(plain_port) + 'protocol = "h2"',
            "sealed": to.format(sealed_port) + 'protocol = "auto"\n' + seal,
            "gone": to.format(1) + 'protocol = "h2"',
            "sockets": to.format(sockets_port),
        },
    )
    try:
        for name in ["calls", "sealed"]:
            for how, channel in channel_to(gate, name, root):
                with channel:
                    print(f"gRPC to {name}, {how}: {grpc_calls(channel)} calls")
        for how, channel in channel_to(gate, "gone", root):
            with channel:
                one = channel.unary_unary(f"/{SERVICE}/Unary")
                error = fails("nobody there", grpc.StatusCode.UNAVAILABLE, lambda: one(b"x", timeout=PATIENCE))
                check("the reason", error.details(), "connect_refused")
        print("gRPC to nobody: UNAVAILABLE")

        def trusting(*protocols):
            context = ssl.create_default_context(cadata=root.decode())
            context.set_alpn_protocols(protocols)
            return context

        websocket_http1(gate, "sockets", None)
        websocket_http1(gate, "sockets", trusting("http/1.1"))
        websocket_http2(gate, "sockets", trusting("h2"))
        print("WebSockets: HTTP/1.1 plain and over TLS, HTTP/2 over TLS")

        async def idle():
            async with asyncio.timeout(PATIENCE):
                while gate.busy():
                    await asyncio.sleep(0.05)

        asyncio.run(idle())
        print("nothing left in flight")
    finally:
        gate.process.terminate()
        gate.process.wait(PATIENCE)
        plain.stop(None)
        sealed.stop(None)
        sockets.shutdown()


main(sys.argv[1])
