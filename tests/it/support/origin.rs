//! A scripted origin: answers each request as told, whole, late, lying or broken, and remembers what it was asked.
//!
//! Each connection has its own thread. The script sees a request's head and returns a [`Reply`]; unless the reply is
//! [`Reply::early`], the request's body is read (and asked for with 100 where the client waits for that) before the
//! reply is played. A request is on record before its answer begins.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::gate::{Gate, Watched};
use super::wire::{Content, Fields, Stream, Wire};

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Which request on its connection it is, counted from 0.
    pub turn: usize,
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// Empty while the script looks at it.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The body's framing says that all of it came.
    pub complete: bool,
}

impl Seen {
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }
}

/// What an origin does about one request.
#[derive(Debug, Clone)]
pub struct Reply {
    interim: Vec<u8>,
    /// `None`: `head` is the whole message.
    status: Option<u16>,
    head: Vec<u8>,
    body: Vec<Step>,
    holds: Vec<Gate>,
    end: End,
    early: bool,
    echo: bool,
    dribble: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    Chunk(Vec<u8>),
    LastChunk(Vec<(String, String)>),
    Wait(Gate),
}

/// What becomes of the connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    KeepAlive,
    Close,
    /// A TCP reset.
    Reset,
    /// Sends its end and goes on reading until the peer closes.
    HalfClose,
    /// Sends back whatever comes, until the peer ends.
    Tunnel,
}

impl Reply {
    /// A head with no body yet.
    pub fn new(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Scripted\r\n");
        Self { status: Some(status), ..Self::raw(head) }.end(End::KeepAlive)
    }

    /// 200 with this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200).body(body)
    }

    /// Exactly these bytes, then the connection closes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            interim: Vec::new(),
            status: None,
            head: bytes.into(),
            body: Vec::new(),
            holds: Vec::new(),
            end: End::Close,
            early: false,
            echo: false,
            dribble: false,
        }
    }

    /// Sends back the request's body.
    pub fn echo() -> Self {
        Self { echo: true, ..Self::new(200) }
    }

    /// 101 to this protocol; then everything comes back as it was sent.
    pub fn upgrade(protocol: &str) -> Self {
        Self::new(101).field("Connection", "Upgrade").field("Upgrade", protocol).end(End::Tunnel)
    }

    /// A field of the head; fields come before [`Reply::body`] and its kin.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        assert!(self.body.is_empty(), "fields come before the body");
        self.head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    /// An interim head before this one.
    pub fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.interim.extend_from_slice(format!("HTTP/1.1 {status} Interim\r\n{lines}\r\n").as_bytes());
        self
    }

    /// A body with its length.
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len();
        self.announced(length, body)
    }

    /// A body with a length that may be a lie.
    pub fn announced(self, length: usize, body: impl AsRef<[u8]>) -> Self {
        self.field("Content-Length", &length.to_string()).until_close(body).end(End::KeepAlive)
    }

    /// A body that ends with the connection.
    pub fn until_close(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body.push(Step::Bytes(body.as_ref().to_vec()));
        self.end(End::Close)
    }

    /// More of a body whose length was announced.
    pub fn then(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.body.push(Step::Bytes(bytes.as_ref().to_vec()));
        self
    }

    /// One chunk of a chunked body; end it with [`Reply::last_chunk`], or do not.
    pub fn chunk(mut self, bytes: impl AsRef<[u8]>) -> Self {
        if self.body.is_empty() {
            self = self.field("Transfer-Encoding", "chunked");
        }
        self.body.push(Step::Chunk(bytes.as_ref().to_vec()));
        self
    }

    pub fn last_chunk(mut self, trailers: &[(&str, &str)]) -> Self {
        let owned = trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.body.push(Step::LastChunk(owned));
        self
    }

    /// Waits for the gate at this place in the body.
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.body.push(Step::Wait(gate.clone()));
        self
    }

    /// Says nothing at all before the gate opens.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.holds.push(gate.clone());
        self
    }

    /// Answers without reading the request's body.
    pub fn early(self) -> Self {
        Self { early: true, ..self }
    }

    /// Writes one byte at a time.
    pub fn dribble(self) -> Self {
        Self { dribble: true, ..self }
    }

    pub fn end(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Writes the reply; an error is the proxy's going away.
    fn play(&self, seen: &Seen, wire: &mut Wire) -> io::Result<()> {
        let shut = || io::Error::other("the gate stayed shut");
        self.holds.iter().all(Gate::pass).then_some(()).ok_or_else(shut)?;
        let mut head = [self.interim.as_slice(), &self.head].concat();
        if self.echo {
            head.extend_from_slice(format!("Content-Length: {}\r\n", seen.body.len()).as_bytes());
        }
        if self.status.is_some() {
            head.extend_from_slice(b"\r\n");
        }
        self.write(wire, &head)?;
        if self.echo {
            return self.write(wire, &seen.body);
        }
        let bodiless = self.status == Some(304) || (self.status.is_some() && seen.method == "HEAD");
        for step in self.body.iter().filter(|_| !bodiless) {
            match step {
                Step::Bytes(bytes) => self.write(wire, bytes)?,
                Step::Chunk(bytes) => {
                    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
                    self.write(wire, &framed)?;
                }
                Step::LastChunk(trailers) => {
                    let lines: String = trailers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
                    self.write(wire, format!("0\r\n{lines}\r\n").as_bytes())?;
                }
                Step::Wait(gate) => gate.pass().then_some(()).ok_or_else(shut)?,
            }
        }
        Ok(())
    }

    fn write(&self, wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
        if self.dribble {
            return bytes.iter().try_for_each(|byte| wire.send(&[*byte]));
        }
        wire.send(bytes)
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    state: Watched<State>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// One per connection ever accepted; `None` once it is closed.
    sockets: Vec<Option<TcpStream>>,
}

/// A running origin; it dies with all its connections when dropped.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch(Box::new(script), None)
    }

    /// Answers everything the same way.
    pub fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// Answers by path (without the query); 404 where the table has none.
    pub fn table(replies: Vec<(&'static str, Reply)>) -> Self {
        Self::start(move |seen| {
            let path = seen.target.split('?').next();
            let row = replies.iter().find(|(wanted, _)| Some(*wanted) == path);
            row.map_or_else(|| Reply::new(404).body("no such page"), |(_, reply)| reply.clone())
        })
    }

    /// An origin that speaks TLS.
    pub fn tls(config: Arc<ServerConfig>, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch(Box::new(script), Some(config))
    }

    /// Origins on one port of 127.0.0.1, 127.0.0.2 and so on, each answering with the last part of its address.
    pub fn neighbours(count: u8) -> Vec<Self> {
        let named = |last: u8| Box::new(move |_: &Seen| Reply::ok(last.to_string()));
        // The port is of the system's choosing on the first address; somebody may have it on another one.
        loop {
            let first = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            let others = (2..=count).map(|last| TcpListener::bind(SocketAddr::from(([127, 0, 0, last], port))));
            if let Ok(others) = others.collect::<io::Result<Vec<_>>>() {
                let all = std::iter::once(first).chain(others).zip(1..);
                return all.map(|(listener, last)| Self::on(listener, named(last), None)).collect();
            }
        }
    }

    fn launch(script: Box<Script>, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script, tls)
    }

    fn on(listener: TcpListener, script: Box<Script>, tls: Option<Arc<ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { script, tls, state: Watched::default(), stopped: AtomicBool::new(false) });
        std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state.read(|state| state.seen.clone())
    }

    /// The only request so far.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "one request was expected: {seen:?}");
        seen.remove(0)
    }

    pub fn requests(&self) -> usize {
        self.shared.state.read(|state| state.seen.len())
    }

    pub fn connections(&self) -> usize {
        self.shared.state.read(|state| state.sockets.len())
    }

    /// Waits until `n` requests are on record, and gives them.
    #[track_caller]
    pub fn wait_requests(&self, n: usize) -> Vec<Seen> {
        let found = self.shared.state.wait(|state| (state.seen.len() >= n).then(|| state.seen.clone()));
        found.unwrap_or_else(|| panic!("{n} requests expected, got {:?}", self.seen()))
    }

    /// Waits until `n` connections have ended.
    #[track_caller]
    pub fn wait_closed(&self, n: usize) {
        let closed = |state: &State| state.sockets.iter().filter(|socket| socket.is_none()).count();
        let found = self.shared.state.wait(|state| (closed(state) >= n).then_some(()));
        found.unwrap_or_else(|| panic!("{n} closed connections expected"));
    }

    /// Dies: refuses new connections and breaks those there are.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // The accept loop wakes up, sees the flag and drops the listener.
        let _ = TcpStream::connect(self.address);
        self.shared.state.read(|state| {
            for socket in state.sockets.iter().flatten() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, socket) in listener.incoming().flatten().enumerate() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        shared.state.update(|state| state.sockets.push(socket.try_clone().ok()));
        let shared = shared.clone();
        std::thread::spawn(move || {
            // The proxy's going away in the middle is part of many tests, and the record tells how far it came.
            let _ = serve(socket, &shared);
            shared.state.update(|state| state.sockets[number] = None);
        });
    }
}

fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let stream = match &shared.tls {
        None => Stream::Plain(socket),
        Some(config) => {
            let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Stream::Server(Box::new(StreamOwned::new(session, socket)))
        }
    };
    let mut wire = Wire::new(stream);
    for turn in 0.. {
        let Some(head) = wire.head() else { return Ok(()) };
        let mut words = head.start.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let mut seen =
            Seen { turn, method: word(), target: word(), version: word(), fields: head.fields, ..Seen::default() };
        let reply = (shared.script)(&seen);
        if !reply.early {
            let content = request_body(&seen.fields, &mut wire)?;
            (seen.body, seen.trailers, seen.complete) = (content.bytes, content.trailers, content.complete);
        }
        let whole = reply.early || seen.complete;
        shared.state.update(|state| state.seen.push(seen.clone()));
        if !whole {
            return Ok(());
        }
        reply.play(&seen, &mut wire)?;
        match reply.end {
            End::KeepAlive => {}
            End::Close => return Ok(()),
            End::Reset => {
                wire.reset();
                return Ok(());
            }
            End::HalfClose => {
                wire.half_close();
                wire.rest();
                return Ok(());
            }
            End::Tunnel => loop {
                let bytes = wire.some();
                if bytes.is_empty() {
                    return Ok(());
                }
                wire.send(&bytes)?;
            },
        }
    }
    Ok(())
}

/// Reads a request's body, asking for it first where the client waits to be asked (RFC 9110 §10.1.1).
fn request_body(fields: &Fields, wire: &mut Wire) -> io::Result<Content> {
    if fields.get("expect").is_some() {
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if fields.has("transfer-encoding") {
        return Ok(wire.chunked());
    }
    let length = fields.get("content-length").and_then(|length| length.parse().ok());
    Ok(wire.sized(length.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::client::{Client, Request};

    /// Asks once and says what came: status, body, whether it was whole.
    #[track_caller]
    fn check(reply: Reply, expected: Option<(u16, &str, bool)>) {
        let origin = Origin::always(reply);
        let mut client = Client::connect(origin.address());
        client.send(Request::get("/x").bytes());
        let answer = client.answer("GET");
        assert_eq!(answer.map(|a| (a.status, a.text(), a.complete)), expected.map(|(s, b, c)| (s, b.to_owned(), c)));
        assert_eq!(origin.only().target, "/x");
    }

    #[test]
    fn plays_what_the_script_says() {
        check(Reply::ok("hello"), Some((200, "hello", true)));
        check(Reply::new(200).announced(9, "hello").end(End::Close), Some((200, "hello", false)));
        check(Reply::new(200).until_close("hello"), Some((200, "hello", true)));
        check(Reply::new(200).chunk("he").chunk("llo").last_chunk(&[]), Some((200, "hello", true)));
        check(Reply::new(200).chunk("he").end(End::Close), Some((200, "he", false)));
        check(Reply::ok("hello").dribble(), Some((200, "hello", true)));
        check(Reply::raw(""), None);
        check(Reply::raw("").end(End::Reset), None);
        check(Reply::raw("HTTP/1.1 299 Odd\r\nContent-Length: 1\r\n\r\nx"), Some((299, "x", true)));
    }

    #[test]
    fn gates_and_interim_heads_keep_their_order() {
        let (first, second) = (Gate::new(), Gate::new());
        let reply = Reply::new(200).interim(103, &[("Link", "</a>")]).chunk("a").wait(&second).chunk("b");
        let origin = Origin::always(reply.last_chunk(&[("X-Sum", "1")]).hold(&first));
        let mut client = Client::connect(origin.address());
        client.send(Request::get("/").bytes());
        origin.wait_requests(1);
        first.open();
        assert_eq!(client.head().0, 103);
        assert_eq!(client.head().0, 200);
        assert_eq!(client.chunk(), "a");
        second.open();
        assert_eq!(client.chunk(), "b");
        assert_eq!(client.read(15), b"0\r\nX-Sum: 1\r\n\r\n"[..].to_vec());
    }

    #[test]
    fn bodies_are_recorded_and_a_stopped_origin_is_gone() {
        let origin = Origin::always(Reply::echo());
        let mut client = Client::connect(origin.address());
        let upload = Request::new("POST", "/up").field("Expect", "100-continue").body("payload");
        let answer = client.ask(&upload);
        assert_eq!((answer.text().as_str(), answer.interim.len()), ("payload", 1));
        client.send("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: t\r\n\r\n");
        assert_eq!(client.answer("POST").unwrap().text(), "abc");
        assert_eq!(origin.seen()[1].trailers.get("x-t"), Some("t"));
        origin.stop();
        client.expect_close();
        origin.wait_closed(1);
    }
}
