//! A thousand clients on one cold object: one fetch, one encoding, everybody served as it arrives; and when the origin
//! breaks off, nobody is told that what they got is all.
//!
//! The origin's head comes when all clients have asked, and each piece of the body when all of them have the one before:
//! nobody can be served from a finished fetch, and whoever is not served while the fetch goes on would stop it. The drill
//! is played small with the other tests, and in full by `tests/herd/run`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_compression::tokio::bufread::BrotliDecoder;
use rustix::process::{Resource, getrlimit, setrlimit};
use tidegate::clock::{Clock, Now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::client::HOST;
use crate::support::gate::Gate;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Tidegate, pool};

/// Longest time one herd may take; it takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How large a drill is, and what it demands.
#[derive(Debug, Clone, Copy)]
struct Drill {
    clients: usize,
    /// Bytes of the object.
    length: usize,
    /// In how many pieces it comes.
    pieces: usize,
    /// How long the origin delays its head once everybody has asked.
    head: Duration,
    /// Within this time of the head every client has its first byte.
    first_byte: Duration,
    /// Bytes of memory the herd may cost: the object, and this for each client.
    each: usize,
}

/// With the other tests beside it on the same cores, and not optimised.
const SMALL: Drill = Drill {
    clients: 1000,
    length: 512 * 1024,
    pieces: 8,
    head: Duration::ZERO,
    first_byte: Duration::from_secs(5),
    each: 48 * 1024,
};

/// By itself.
const FULL: Drill = Drill {
    length: 5 * 1024 * 1024,
    pieces: 16,
    head: Duration::from_secs(2),
    first_byte: Duration::from_millis(500),
    ..SMALL
};

/// What the origin does with the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sends {
    All,
    HalfOfItsLength,
    HalfOfItsChunks,
}

/// What one client got.
#[derive(Debug, Default)]
struct Got {
    status: u16,
    head: String,
    /// Content, its framing taken off; empty where it was compared as it came.
    body: Vec<u8>,
    /// Bytes of content, all of them as expected.
    right: usize,
    /// The framing says that all of it came.
    complete: bool,
    first_byte: Option<Now>,
}

/// What the clients have reached together, and the gates it opens.
struct Progress {
    asked: AtomicUsize,
    /// By piece: how many clients have all of it.
    reached: Vec<AtomicUsize>,
    head: Gate,
    pieces: Vec<Gate>,
    drill: Drill,
    began: OnceLock<Now>,
}

impl Progress {
    fn new(drill: Drill) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            reached: (0..drill.pieces).map(|_| AtomicUsize::new(0)).collect(),
            head: Gate::new(),
            pieces: (0..drill.pieces).map(|_| Gate::new()).collect(),
            drill,
            began: OnceLock::new(),
        })
    }

    fn is_last(&self, counter: &AtomicUsize) -> bool {
        counter.fetch_add(1, Ordering::SeqCst) + 1 == self.drill.clients
    }

    async fn ask(&self) {
        if self.is_last(&self.asked) {
            // The delay of the origin that is played, not a wait for something.
            let _ = tokio::time::timeout(self.drill.head, std::future::pending::<()>()).await;
            self.began.set(Clock::System.now()).expect("once");
            self.head.open();
        }
    }

    /// A client has the bytes up to `to`, and had those up to `from`.
    fn reach(&self, from: usize, to: usize) {
        let size = self.drill.length / self.drill.pieces;
        for piece in from / size..(to / size).min(self.drill.pieces) {
            if self.is_last(&self.reached[piece]) {
                self.pieces[piece].open();
            }
        }
    }

    fn origin(self: &Arc<Self>, object: &[u8], sends: Sends) -> Reply {
        let pieces: Vec<&[u8]> = object.chunks(object.len() / self.drill.pieces).collect();
        let head = Reply::new(200).field("Cache-Control", "max-age=60").field("Content-Type", "text/plain");
        let sent = if sends == Sends::All { pieces.len() } else { pieces.len() / 2 };
        let begin = match sends {
            Sends::HalfOfItsChunks => head.chunk(pieces[0]),
            Sends::All | Sends::HalfOfItsLength => head.announced(object.len(), pieces[0]),
        };
        let more = |reply: Reply, number: usize| {
            let reply = reply.wait(&self.pieces[number - 1]);
            if sends == Sends::HalfOfItsChunks { reply.chunk(pieces[number]) } else { reply.then(pieces[number]) }
        };
        let whole = (1..sent).fold(begin, more).hold(&self.head);
        // The last piece is out of the origin's hands when everybody has it, so that a cut finds nobody without a head.
        if sends == Sends::All { whole } else { whole.wait(&self.pieces[sent - 1]).end(End::Close) }
    }
}

/// Sends its request, says so, and reads to the end of the connection.
async fn client(address: SocketAddr, coding: &str, object: Arc<Vec<u8>>, progress: Arc<Progress>) -> Got {
    let mut tcp = TcpStream::connect(address).await.expect("the listener accepts");
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.expect("the request is taken");
    progress.ask().await;
    let mut got = Got::default();
    let (mut ahead, mut content) = (Vec::with_capacity(32 * 1024), Content::default());
    // A cut connection may end in a reset.
    while tcp.read_buf(&mut ahead).await.is_ok_and(|read| read > 0) {
        got.first_byte.get_or_insert_with(|| Clock::System.now());
        if got.head.is_empty() {
            let Some(end) = ahead.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            got.head = String::from_utf8_lossy(&ahead.drain(..end + 4).collect::<Vec<_>>()).to_lowercase();
            got.status = got.head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
            content = Content::of(&got.head);
        }
        content.take(&mut ahead, |piece| {
            let from = got.right;
            if coding == "identity" {
                let expected = object.get(from..from + piece.len());
                assert!(expected == Some(piece), "other bytes than the origin's at {from}");
            } else {
                got.body.extend_from_slice(piece);
            }
            got.right += piece.len();
            progress.reach(from, got.right);
        });
    }
    got.complete = content.is_complete();
    got
}

/// How a body is framed, and how much of it is still to come.
#[derive(Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Unknown,
    Length(usize),
    /// Bytes left of this chunk.
    Chunk(usize),
    /// The last chunk was there.
    Ended,
}

impl Content {
    fn of(head: &str) -> Self {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        match length {
            Some(length) => Self::Length(length.parse().expect("a length")),
            None if head.contains("transfer-encoding: chunked") => Self::Chunk(0),
            None => Self::Unknown,
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Ended)
    }

    /// Gives what of `ahead` is content to `to`, and leaves what is framing that is not complete.
    fn take(&mut self, ahead: &mut Vec<u8>, mut to: impl FnMut(&[u8])) {
        let mut at = 0;
        loop {
            let rest = &ahead[at..];
            match self {
                Self::Length(left) | Self::Chunk(left) if *left > 0 && !rest.is_empty() => {
                    let piece = &rest[..rest.len().min(*left)];
                    to(piece);
                    *left -= piece.len();
                    at += piece.len();
                }
                Self::Chunk(0) => {
                    // The line end of the chunk before, and the size of this one.
                    let line = rest.strip_prefix(b"\r\n").unwrap_or(rest);
                    let Some(end) = line.windows(2).position(|window| window == b"\r\n") else { break };
                    let size = std::str::from_utf8(&line[..end]).expect("a chunk size");
                    let size = usize::from_str_radix(size, 16).expect("a chunk size");
                    at += rest.len() - line.len() + end + 2;
                    *self = if size > 0 { Self::Chunk(size) } else { Self::Ended };
                }
                _ => break,
            }
        }
        ahead.drain(..at);
    }
}

/// All clients at once, to the end of the last one.
fn stampede(gate: &Tidegate, coding: &'static str, object: &Arc<Vec<u8>>, progress: &Arc<Progress>) -> Vec<Got> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = gate.listener("http");
    let all = async {
        let mut clients = JoinSet::new();
        for _ in 0..progress.drill.clients {
            clients.spawn(client(address, coding, object.clone(), progress.clone()));
        }
        clients.join_all().await
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await }).expect("all of them are served in time")
}

/// One herd at a time: the descriptors and cores are everybody's.
static ALONE: Mutex<()> = Mutex::new(());

/// A Tidegate for herds.
fn facing(origin: &Origin) -> (Tidegate, MutexGuard<'static, ()>) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Both sides need a descriptor for each client, and the program inherits what this process may have.
    let limit = getrlimit(Resource::Nofile);
    let wanted = 8192;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = rustix::process::Rlimit {
            current: limit.maximum.map_or(Some(wanted), |max| Some(max.min(wanted))),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("a process may raise its own limit");
    }
    let listener = PLAIN.to_owned() + "limits = { connections_per_client = 4000 }\n";
    let route = "[[route]]\npool = \"web\"\ncache = \"files\"\ncompress = \"all\"\n[cache.files]\n[compress.all]\ncodings = [\"br\"]\n";
    let gate = Tidegate::start(&format!("{listener}{}{route}", pool("web", &[origin], "")));
    (gate, alone)
}

/// A line of the program's status, in bytes.
fn memory(gate: &Tidegate, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    let line = status.lines().find_map(|text| text.strip_prefix(line)).expect("Linux says it");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

fn object(drill: Drill) -> Arc<Vec<u8>> {
    Arc::new((0..drill.length / 16).flat_map(|n| format!("{:015}\n", n * 16).into_bytes()).collect())
}

fn one_fetch_serves_all(drill: Drill) {
    let (object, progress) = (object(drill), Progress::new(drill));
    let origin = Origin::always(progress.origin(&object, Sends::All));
    let (gate, _alone) = facing(&origin);
    let before = memory(&gate, "VmRSS:");
    let answers = stampede(&gate, "identity", &object, &progress);
    let began = *progress.began.get().expect("the head was sent");
    for got in &answers {
        assert_eq!((got.status, got.complete, got.right), (200, true, drill.length), "{}", got.head);
    }
    let latest = answers.iter().filter_map(|got| got.first_byte).map(|first| first.since(began)).max().unwrap();
    let grown = memory(&gate, "VmHWM:").saturating_sub(before);
    eprintln!(
        "{} clients, {} bytes: last first byte {latest:?} after the head, memory +{} KiB",
        drill.clients,
        drill.length,
        grown / 1024
    );
    assert!(latest <= drill.first_byte, "the last first byte came {latest:?} after the head");
    assert!(grown <= drill.length + drill.clients * drill.each, "{grown} bytes of memory");
    assert_eq!(origin.requests(), 1);
    gate.expect_idle();
}

fn one_encoding_serves_all(drill: Drill) {
    let (object, progress) = (object(drill), Progress::new(Drill { pieces: 1, ..drill }));
    let origin = Origin::always(progress.origin(&object, Sends::All));
    let (gate, _alone) = facing(&origin);
    let answers = stampede(&gate, "br", &object, &progress);
    for got in &answers {
        assert!(got.status == 200 && got.complete && got.head.contains("content-encoding: br"), "{}", got.head);
        assert!(got.body == answers[0].body, "one encoding has one body");
    }
    let mut decoded = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(BrotliDecoder::new(answers[0].body.as_slice()).read_to_end(&mut decoded)).expect("it is br");
    assert!(decoded == *object);
    let metrics = gate.metrics();
    assert!(metrics.contains("tidegate_encodings_total{coding=\"br\"} 1\n"), "{metrics}");
    assert_eq!(origin.requests(), 1);
    gate.expect_idle();
}

fn a_cut_looks_whole_to_nobody(drill: Drill) {
    for sends in [Sends::HalfOfItsLength, Sends::HalfOfItsChunks] {
        let (object, progress, again) = (object(drill), Progress::new(drill), Progress::new(drill));
        let turn = AtomicUsize::new(0);
        let origin = Origin::start({
            let replies = [progress.origin(&object, sends), again.origin(&object, Sends::All)];
            move |_| replies[turn.fetch_add(1, Ordering::SeqCst).min(1)].clone()
        });
        let (gate, _alone) = facing(&origin);
        for got in stampede(&gate, "identity", &object, &progress) {
            assert!(
                !got.complete && got.status == 200,
                "{sends:?}: {} of {} bytes look whole",
                got.right,
                drill.length
            );
        }
        assert_eq!(origin.requests(), 1, "{sends:?}: all of them had joined the one fetch");
        gate.expect_idle();
        // Everybody comes back at once.
        for got in stampede(&gate, "identity", &object, &again) {
            assert_eq!((got.status, got.complete, got.right), (200, true, drill.length), "{sends:?}: {}", got.head);
        }
        assert_eq!(origin.requests(), 2, "{sends:?}: one more for all of them");
        gate.expect_idle();
    }
}

#[test]
fn one_fetch_for_a_thousand() {
    one_fetch_serves_all(SMALL);
}

#[test]
fn one_encoding_for_a_thousand() {
    one_encoding_serves_all(SMALL);
}

#[test]
fn a_cut_for_a_thousand() {
    a_cut_looks_whole_to_nobody(SMALL);
}

#[test]
#[ignore = "tests/herd/run plays it by itself"]
fn the_full_drill() {
    one_fetch_serves_all(FULL);
    one_encoding_serves_all(FULL);
    a_cut_looks_whole_to_nobody(FULL);
}
