//! An origin that writes HTTP/2 frame by frame: whatever a broken one may do (RFC 9113 §4, §6).
//!
//! Each connection has its own thread. The steps of the script are played when a request is complete, or at its HEADERS
//! with [`Frames::early`]; meanwhile and afterwards the connection is read, PINGs and SETTINGS are answered.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gate::{Gate, Watched};
use super::wire::{Stream, Wire};

/// What the origin does, in order.
#[derive(Debug, Clone)]
pub enum Step {
    /// HEADERS: status, fields, END_STREAM.
    Head(u16, Vec<(&'static str, String)>, bool),
    /// DATA, END_STREAM.
    Data(Vec<u8>, bool),
    /// HEADERS that end the stream, without a status.
    Trailers(Vec<(&'static str, String)>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code; `true`: the stream at hand is still answered.
    GoAway(u32, bool),
    /// Any frame: type, flags, whether it names the stream at hand, payload; so many times.
    Frame(u8, u8, bool, Vec<u8>, usize),
    /// Waits for a gate.
    Wait(Gate),
    /// Any bytes.
    Raw(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Closes it with a TCP reset.
    Abort,
}

/// A head of a response with a body to come.
pub fn head(status: u16) -> Step {
    Step::Head(status, Vec::new(), false)
}

/// The codes of RFC 9113 §7.
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Default)]
struct State {
    connections: usize,
    requests: usize,
    /// Bytes of request bodies.
    body: usize,
}

/// A running origin.
pub struct Frames {
    address: SocketAddr,
    state: Watched<State>,
    stopped: Arc<AtomicBool>,
}

/// How the origin begins and when it answers.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// SETTINGS it sends; `None` = none at all.
    pub settings: Option<Vec<(u16, u32)>>,
    /// Answers at HEADERS.
    pub early: bool,
    /// Gives no new window for request bodies.
    pub stingy: bool,
    /// What the last stream gets when a PING has come.
    pub on_ping: Vec<Step>,
}

impl Manners {
    pub fn good() -> Self {
        Self { settings: Some(Vec::new()), ..Self::default() }
    }

    pub fn early() -> Self {
        Self { early: true, ..Self::good() }
    }
}

impl Frames {
    /// Every request gets these steps.
    pub fn always(steps: Vec<Step>) -> Self {
        Self::start(Manners::good(), move |_| steps.clone())
    }

    /// The script is given the number of the request, counted from 0 over all connections.
    pub fn start(manners: Manners, script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, stopped) = (Watched::<State>::default(), Arc::new(AtomicBool::new(false)));
        let script = Arc::new(script);
        std::thread::spawn({
            let (state, stopped) = (state.clone(), stopped.clone());
            move || {
                for socket in listener.incoming().flatten() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    state.update(|state| state.connections += 1);
                    let (state, manners, script) = (state.clone(), manners.clone(), script.clone());
                    // The proxy's going away in the middle is part of many tests.
                    std::thread::spawn(move || drop(serve(socket, &manners, &*script, &state)));
                }
            }
        });
        Self { address, state, stopped }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.state.read(|state| state.connections)
    }

    pub fn requests(&self) -> usize {
        self.state.read(|state| state.requests)
    }

    /// Bytes of request bodies that came.
    pub fn body(&self) -> usize {
        self.state.read(|state| state.body)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The accept loop wakes up, sees the flag and drops the listener.
        let _ = TcpStream::connect(self.address);
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn read(wire: &mut Wire) -> Option<Frame> {
    let head = wire.take(9);
    if head.len() < 9 {
        return None;
    }
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    let payload = wire.take(length);
    (payload.len() == length).then_some(Frame { kind: head[3], flags: head[4], stream, payload })
}

fn write(wire: &mut Wire, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
    wire.send(&framed(kind, flags, stream, payload))
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field as HPACK's literal without indexing (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).unwrap());
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            bytes.push(u8::try_from(length).unwrap());
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// HEADERS, with CONTINUATION where one frame does not hold it.
fn headers(wire: &mut Wire, stream: u32, end: bool, block: &[u8]) -> io::Result<()> {
    let mut pieces = block.chunks(16 * 1024).peekable();
    let mut kind = HEADERS;
    loop {
        let piece = pieces.next().unwrap_or_default();
        let last = pieces.peek().is_none();
        let end_stream = if kind == HEADERS && end { END_STREAM } else { 0 };
        write(wire, kind, end_stream | if last { END_HEADERS } else { 0 }, stream, piece)?;
        if last {
            return Ok(());
        }
        kind = 9;
    }
}

fn serve(
    socket: TcpStream,
    manners: &Manners,
    script: &dyn Fn(usize) -> Vec<Step>,
    state: &Watched<State>,
) -> io::Result<()> {
    let mut wire = Wire::new(Stream::Plain(socket));
    if wire.take(24).len() < 24 {
        return Ok(());
    }
    if let Some(settings) = &manners.settings {
        let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(pair).collect();
        write(&mut wire, SETTINGS, 0, 0, &payload)?;
    }
    let mut last = 0;
    while let Some(frame) = read(&mut wire) {
        last = last.max(frame.stream);
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => write(&mut wire, SETTINGS, ACK, 0, &[])?,
            PING if frame.flags & ACK == 0 => {
                write(&mut wire, PING, ACK, 0, &frame.payload)?;
                for step in &manners.on_ping {
                    play(step, &mut wire, last)?;
                }
            }
            DATA => {
                state.update(|state| state.body += frame.payload.len());
                if !manners.stingy && !frame.payload.is_empty() {
                    let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                    write(&mut wire, WINDOW_UPDATE, 0, 0, &more)?;
                    if frame.flags & END_STREAM == 0 {
                        write(&mut wire, WINDOW_UPDATE, 0, frame.stream, &more)?;
                    }
                }
            }
            _ => {}
        }
        let begins = frame.kind == HEADERS;
        let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        if if manners.early { begins } else { ends } {
            let number = state.update(|state| {
                state.requests += 1;
                state.requests - 1
            });
            for step in script(number) {
                if play(&step, &mut wire, frame.stream)? {
                    if matches!(step, Step::Abort) {
                        wire.reset();
                    }
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// True when the connection is over.
fn play(step: &Step, wire: &mut Wire, stream: u32) -> io::Result<bool> {
    let block = |fields: &[(&str, String)]| -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
    };
    match step {
        Step::Head(status, fields, end) => {
            let block = [literal(":status", &status.to_string()), block(fields)].concat();
            headers(wire, stream, *end, &block)?;
        }
        Step::Data(bytes, end) => {
            let mut pieces = bytes.chunks(16 * 1024).peekable();
            loop {
                let piece = pieces.next().unwrap_or_default();
                let last = pieces.peek().is_none();
                write(wire, DATA, u8::from(*end && last) * END_STREAM, stream, piece)?;
                if last {
                    break;
                }
            }
        }
        Step::Trailers(fields) => headers(wire, stream, true, &block(fields))?,
        Step::Reset(code) => write(wire, RST_STREAM, 0, stream, &code.to_be_bytes())?,
        Step::GoAway(code, answered) => {
            let last = if *answered { stream } else { stream.saturating_sub(2) };
            write(wire, GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())?;
        }
        Step::Frame(kind, flags, on_stream, payload, times) => {
            let one = framed(*kind, *flags, if *on_stream { stream } else { 0 }, payload);
            let many = one.repeat(64.min(*times));
            let mut left = *times;
            while left > 0 {
                let now = left.min(64);
                wire.send(&many[..one.len() * now])?;
                left -= now;
            }
        }
        Step::Wait(gate) => {
            if !gate.pass() {
                return Err(io::Error::other("the gate stayed shut"));
            }
        }
        Step::Raw(bytes) => wire.send(bytes)?,
        Step::Close | Step::Abort => return Ok(true),
    }
    Ok(false)
}
