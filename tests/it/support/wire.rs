//! HTTP/1 messages as bytes on a blocking stream: just enough of RFC 9112 to read what the other side says.
//!
//! Deliberately lax: the tests look at what was sent, so nothing is refused here. A stream that ends early gives what
//! there was, marked incomplete; silence beyond [`PATIENCE`] panics on the test's side.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// Fields in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of the only field of that name.
    ///
    /// # Panics
    ///
    /// When there are several: a test that expects a list asks for [`Fields::all`].
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came more than once: {all:?}");
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

/// A start line and its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub start: String,
    pub fields: Fields,
}

/// Body bytes, the trailers behind them, and whether the end was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub trailers: Fields,
    pub complete: bool,
}

/// One side of a connection, plain or TLS.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Client(tls) => &tls.sock,
            Self::Server(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Client(tls) => tls.read(into),
            Self::Server(tls) => tls.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Client(tls) => tls.write(bytes),
            Self::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Client(tls) => tls.flush(),
            Self::Server(tls) => tls.flush(),
        }
    }
}

/// A stream with what was read ahead of need.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    ahead: Vec<u8>,
    /// The stream ended with an error and not with an orderly end.
    pub reset: bool,
}

impl Wire {
    pub fn new(stream: Stream) -> Self {
        // A test that looks at when bytes arrive must not wait for Nagle's algorithm.
        let _ = stream.tcp().set_nodelay(true);
        Self { stream, ahead: Vec::new(), reset: false }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn half_close(&mut self) {
        let _ = self.stream.tcp().shutdown(Shutdown::Write);
    }

    /// Closes with a TCP reset, as a crashed peer does.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(self.stream.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Reads once; false at the end of the stream, however it ended.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.ahead.extend_from_slice(&chunk[..n]);
                true
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the peer kept silent; so far: {:?}", String::from_utf8_lossy(&self.ahead))
            }
            // TLS without close_notify is an end like any other here: whether the message is whole is for its framing.
            Err(e) => {
                self.reset = e.kind() != io::ErrorKind::UnexpectedEof;
                false
            }
        }
    }

    /// Everything up to and with `mark`; `None` when the stream ends before it.
    #[track_caller]
    pub fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|window| window == mark) {
                return Some(self.ahead.drain(..at + mark.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Up to `n` bytes; fewer only at the end of the stream.
    #[track_caller]
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n && self.fill() {}
        let n = n.min(self.ahead.len());
        self.ahead.drain(..n).collect()
    }

    /// Whatever comes first, at least one byte; empty at the end of the stream.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.ahead)
    }

    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// The next message head; `None` when the stream ends first.
    #[track_caller]
    pub fn head(&mut self) -> Option<Head> {
        let text = self.until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        Some(Head { start, fields: fields(lines) })
    }

    /// `length` bytes.
    #[track_caller]
    pub fn sized(&mut self, length: usize) -> Content {
        let bytes = self.take(length);
        Content { complete: bytes.len() == length, bytes, trailers: Fields::default() }
    }

    /// A body that ends with the connection: complete unless that was reset.
    #[track_caller]
    pub fn until_close(&mut self) -> Content {
        let bytes = self.rest();
        Content { bytes, trailers: Fields::default(), complete: !self.reset }
    }

    /// A chunked body (RFC 9112 §7.1).
    #[track_caller]
    pub fn chunked(&mut self) -> Content {
        let mut content = Content::default();
        while let Some(line) = self.until(b"\r\n") {
            let line = String::from_utf8_lossy(&line).into_owned();
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(digits, 16) else { panic!("not a chunk size: {line:?}") };
            if size == 0 {
                let mut lines = Vec::new();
                while let Some(line) = self.until(b"\r\n") {
                    if line == b"\r\n" {
                        content.trailers = fields(lines.iter().map(String::as_str));
                        content.complete = true;
                        return content;
                    }
                    lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
                return content;
            }
            content.bytes.extend(self.take(size));
            if self.take(2) != b"\r\n" {
                return content;
            }
        }
        content
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Fields {
    let pair = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_owned(), value.trim().to_owned())
    };
    Fields(lines.map(pair).collect())
}
