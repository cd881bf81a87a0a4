//! A client that sends exactly the bytes it is told to, and reads what an HTTP/1 client would read.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use super::PATIENCE;
use super::wire::{Content, Fields, Head, Stream, Wire};

/// The host that every request names unless it says otherwise.
pub const HOST: &str = "shop.example";

/// A response, as whole as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The 1xx heads before it.
    pub interim: Vec<(u16, Fields)>,
    /// The body's framing says that all of it came.
    pub complete: bool,
}

impl Answer {
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless this is a whole answer with that status; gives the answer back.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!((self.status, self.complete), (status, true), "{:?} {}", self.fields, self.text());
        self
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), host: HOST.into(), fields: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn host(self, host: &str) -> Self {
        Self { host: host.into(), ..self }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// A body with its `Content-Length`.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { body, ..self }.field("Content-Length", &length)
    }

    /// The request on an HTTP/1.1 connection.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A client connection to a listener.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self { wire: Wire::new(Stream::Plain(connect(address))) }
    }

    /// Connects and completes the handshake; the error is the one the handshake ended with.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Result<Self, std::io::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(session, connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { wire: Wire::new(Stream::Client(Box::new(stream))) })
    }

    /// The TLS session, for what the handshake settled.
    #[track_caller]
    pub fn session(&self) -> &ClientConnection {
        match self.wire.stream() {
            Stream::Client(stream) => &stream.conn,
            _ => panic!("not a TLS connection"),
        }
    }

    pub fn resumed(&self) -> bool {
        self.session().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Sends what the server may refuse to take because it has closed already.
    pub fn send_in_vain(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.send(bytes.as_ref());
    }

    /// Goes away with a TCP reset.
    pub fn abort(self) {
        self.wire.reset();
    }

    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.send(request.bytes());
        self.answer(&request.method).unwrap_or_else(|| panic!("closed without an answer to {request:?}"))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(&Request::get(target))
    }

    /// The next answer, to a request with that method; `None` when the connection ends before its head is whole.
    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Option<Answer> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head()?;
            let status = status_of(&head);
            if (100..200).contains(&status) && status != 101 {
                interim.push((status, head.fields));
                continue;
            }
            let content = self.content(method, status, &head);
            return Some(Answer {
                status,
                fields: head.fields,
                body: content.bytes,
                trailers: content.trailers,
                interim,
                complete: content.complete,
            });
        }
    }

    /// Waits for what comes next for longer than usual.
    pub fn wait_up_to(&mut self, patience: Duration) {
        self.wire.stream().tcp().set_read_timeout(Some(patience)).unwrap();
    }

    /// The next head, interim or final, leaving its body to be read.
    #[track_caller]
    pub fn head(&mut self) -> (u16, Fields) {
        let head = self.wire.head().expect("a response head");
        (status_of(&head), head.fields)
    }

    /// One chunk of a chunked body, as text.
    #[track_caller]
    pub fn chunk(&mut self) -> String {
        String::from_utf8(self.raw_chunk()).unwrap()
    }

    /// One chunk of a chunked body.
    #[track_caller]
    pub fn raw_chunk(&mut self) -> Vec<u8> {
        let size = self.wire.until(b"\r\n").expect("a chunk size");
        let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("a chunk size in hex");
        let chunk = self.wire.take(size);
        assert_eq!(self.wire.take(2), b"\r\n", "a chunk ends with CRLF");
        chunk
    }

    #[track_caller]
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        self.wire.take(n)
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.wire.rest()
    }

    /// Waits until the server closes, and fails if it says anything before.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.wire.rest();
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    #[track_caller]
    fn content(&mut self, method: &str, status: u16, head: &Head) -> Content {
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            return Content { complete: true, ..Content::default() };
        }
        if head.fields.get("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.wire.chunked();
        }
        match head.fields.get("content-length") {
            Some(length) => self.wire.sized(length.parse().expect("Content-Length is a number")),
            None => self.wire.until_close(),
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect_timeout(&address, PATIENCE).expect("the listener accepts");
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp
}

fn status_of(head: &Head) -> u16 {
    let status = head.start.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("not a status line: {:?}", head.start))
}
