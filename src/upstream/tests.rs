//! The client against origins that follow a script, byte by byte, over real loopback sockets.
//!
//! Every case ends with the same question: is the endpoint's in-flight count zero again?

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body as _, Frame, SizeHint};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::body::{Body, Interim, Source};
use crate::clock::Clock;
use crate::error::{ErrorKind, ProxyError, Retry, Stage};
use crate::policy::balance::{AdminState, Balance};
use crate::policy::health::{HealthParams, ProbeKind};
use crate::policy::pool::{Address, EndpointParams, HostHeader, KeepAlive, OriginProtocol, PoolParams, PoolTimeouts};
use crate::policy::retry::RetryParams;

/// What the origin does next on a connection.
#[derive(Debug, Clone)]
enum Act {
    /// Reads a request head.
    Head,
    /// Reads until so many bytes have come after the head.
    Read(usize),
    Send(&'static str),
    /// Sends one byte at a time, each in its own segment.
    Trickle(&'static str),
    /// Sends the text so many times.
    Repeat(&'static str, usize),
    /// Echoes whatever comes until the client closes.
    Echo,
    /// Closes with a TCP reset.
    Reset,
    /// Keeps the connection open, silent and reading until the client closes it.
    Hang,
    /// Goes on when told to.
    Await(Arc<Notify>),
    /// Keeps the connection open and does not read either.
    Stall,
}
use Act::{Await, Echo, Hang, Head, Read, Repeat, Reset, Send, Stall, Trickle};

/// An origin whose connections follow one script each, the last one repeated.
struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicU32>,
    /// Request heads in the order they came.
    heads: Arc<Mutex<Vec<String>>>,
    /// The certificate it shows, as PEM text; empty on a plain one.
    certificate: Vec<u8>,
}

impl Origin {
    async fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::listen(scripts, None).await
    }

    /// Speaks TLS as `origin.example`. With `asks` it demands a client certificate signed by its own.
    async fn start_tls(scripts: Vec<Vec<Act>>, asks: bool) -> Self {
        let made = rcgen::generate_simple_self_signed(["origin.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let mut origin = Self::listen(scripts, Some(TlsAcceptor::from(Arc::new(config)))).await;
        origin.certificate = made.cert.pem().into_bytes();
        origin
    }

    async fn listen(scripts: Vec<Vec<Act>>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicU32::new(0));
        let heads = Arc::default();
        let (count, log) = (Arc::clone(&accepted), Arc::clone(&heads));
        tokio::spawn(async move {
            let mut scripts = VecDeque::from(scripts);
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let script = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() };
                let (script, log) = (script.unwrap_or_default(), Arc::clone(&log));
                match tls.clone() {
                    None => tokio::spawn(play(stream, script, log)),
                    Some(tls) => tokio::spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            play(stream, script, log).await;
                        }
                    }),
                };
            }
        });
        Self { address, accepted, heads, certificate: Vec::new() }
    }

    fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    fn last_head(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

async fn play<S: Transport>(mut stream: S, script: Vec<Act>, heads: Arc<Mutex<Vec<String>>>) {
    let mut seen = Vec::new();
    for act in script {
        let done = match act {
            Head => read_head(&mut stream, &mut seen).await.map(|head| heads.lock().unwrap().push(head)),
            Read(bytes) => {
                while seen.len() < bytes && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
                Ok(())
            }
            Send(text) => stream.write_all(text.as_bytes()).await,
            Trickle(text) => trickle(&mut stream, text).await,
            Repeat(text, times) => stream.write_all(text.repeat(times).as_bytes()).await,
            Echo => {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                tokio::io::copy(&mut read, &mut write).await.map(drop)
            }
            Reset => {
                stream.reset_on_close();
                return;
            }
            Await(told) => {
                told.notified().await;
                Ok(())
            }
            Stall => std::future::pending().await,
            Hang => tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop),
        };
        if done.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// What a script is played on.
trait Transport: AsyncRead + AsyncWrite + Unpin + std::marker::Send {
    fn reset_on_close(&self);
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Transport for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

async fn read_head(stream: &mut impl Transport, seen: &mut Vec<u8>) -> std::io::Result<String> {
    loop {
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(seen.drain(..end + 4).map(char::from).collect());
        }
        if stream.read_buf(seen).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn trickle(stream: &mut impl Transport, text: &str) -> std::io::Result<()> {
    for byte in text.as_bytes() {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

pub(super) fn pool(addresses: &[SocketAddr], edit: impl FnOnce(&mut PoolParams)) -> Arc<Pool> {
    let endpoint = |address: &SocketAddr| EndpointParams {
        address: Address::Ip(*address),
        weight: 1,
        max_connections: None,
        tier: 0,
        state: AdminState::Up,
        discovered: false,
    };
    let mut params = PoolParams {
        name: "web".into(),
        discover: None,
        resolver: Vec::new(),
        balance: Balance::RoundRobin,
        hash: None,
        slow_start: None,
        sticky: None,
        queue: None,
        max_in_flight: None,
        adaptive: None,
        endpoints: addresses.iter().map(endpoint).collect(),
        host: HostHeader::Preserve,
        health: None,
        outlier: None,
        panic: 0.5,
        retry: RetryParams::default(),
        hedge: None,
        timeouts: PoolTimeouts {
            connect: Duration::from_millis(300),
            first_byte: Duration::from_millis(150),
            idle: Duration::from_millis(150),
            total: None,
        },
        keep_alive: KeepAlive::default(),
        protocol: OriginProtocol::Http1,
        proxy_protocol: None,
    };
    edit(&mut params);
    Arc::new(Pool::build(params, None, None, &farm()))
}

/// Asks for the names of a pool until dropped.
fn following(pool: &Arc<Pool>) -> Discovery {
    let mut discovery = Discovery::new(tokio::runtime::Handle::current(), Arc::default());
    discovery.follow(std::slice::from_ref(pool));
    discovery
}

fn farm() -> Arc<Farm> {
    Arc::new(Farm::new(b"secret"))
}

pub(super) fn request(method: Method, body: Body) -> OutRequest {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::HOST, HeaderValue::from_static("shop.example"));
    let target = Bytes::from_static(b"/a?b=c");
    OutRequest {
        method,
        target,
        headers,
        body,
        interim: Interim::default(),
        upgrade: false,
        websocket_key: None,
        client: None,
        timeouts: None,
    }
}

pub(super) fn get() -> OutRequest {
    request(Method::GET, Body::Empty)
}

/// A request body made of given frames; after the last one the client falls silent.
struct Frames(VecDeque<Result<Frame<Bytes>, ProxyError>>);

impl Source for Frames {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        self.0.pop_front().map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)))
    }
}

pub(super) fn stalling_upload(frames: impl IntoIterator<Item = Result<Frame<Bytes>, ProxyError>>) -> OutRequest {
    request(Method::POST, Body::stream(Frames(frames.into_iter().collect())))
}

/// How long [`slow_upload`] takes.
pub(super) const SLOW: Duration = Duration::from_millis(800);

/// A client that takes its time over the only piece it has.
struct Slow(Option<Pin<Box<tokio::time::Sleep>>>);

impl Source for Slow {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(sleep) = &mut self.0 else { return Poll::Ready(None) };
        std::task::ready!(sleep.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"slow")))))
    }
}

pub(super) fn slow_upload() -> OutRequest {
    request(Method::POST, Body::stream(Slow(Some(Box::pin(tokio::time::sleep(SLOW))))))
}

/// A client that never stops sending.
struct Endless;

impl Source for Endless {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Lets the sockets settle until `done`; a second is for ever here.
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    let settle = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), settle).await.expect("it happens within a second");
}

pub(super) async fn send(
    worker: &Rc<Connections>,
    pool: &Arc<Pool>,
    mut request: OutRequest,
) -> Result<Answer, Failure> {
    let slot = worker.pick(pool, &Wanted::default()).expect("a free endpoint");
    worker.send(pool, slot, &mut request, true).await
}

/// Reads a body to its end: what came, trailers, and how it ended.
pub(super) async fn drain(mut body: Body) -> (usize, Option<HeaderMap>, Option<ErrorKind>) {
    let (mut bytes, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes += data.len(),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (bytes, trailers, Some(error.kind)),
        }
    }
    (bytes, trailers, None)
}

/// One word or two for how an exchange went.
async fn outcome(worker: &Rc<Connections>, pool: &Arc<Pool>, request: OutRequest) -> String {
    match send(worker, pool, request).await {
        Err(failure) => {
            assert_eq!(failure.replayable, failure.error.retry != Retry::No, "the verdict and the request agree");
            format!("{} {:?}", failure.error.kind.row().reason, failure.error.retry)
        }
        Ok(answer) => {
            let status = answer.response.status.as_u16();
            let (bytes, _, error) = drain(answer.response.body).await;
            format!("{status} {bytes} {}", error.map_or("complete", |kind| kind.row().reason))
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn whatever_an_origin_does_has_a_name_and_frees_its_slot() {
    let cases: Vec<(&str, Vec<Act>, &str)> = vec![
        ("plain", vec![Head, Send(OK), Hang], "200 5 complete"),
        ("closed before the head", vec![Head], "connection_closed IfIdempotent"),
        ("reset before the head", vec![Head, Reset], "connection_reset IfIdempotent"),
        ("never answers", vec![Head, Hang], "first_byte_timeout IfIdempotent"),
        ("head byte by byte", vec![Head, Trickle(OK), Hang], "200 5 complete"),
        ("stalls in the head", vec![Head, Send("HTTP/1.1 200 OK\r\nConte"), Hang], "first_byte_timeout IfIdempotent"),
        ("reset in the head", vec![Head, Send("HTTP/1.1 200 OK\r\nConte"), Reset], "connection_reset IfIdempotent"),
        ("closed in the head", vec![Head, Send("HTTP/1.1 200 OK\r\nConte")], "connection_closed IfIdempotent"),
        (
            "length too long",
            vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")],
            "200 5 response_truncated",
        ),
        (
            "length too short",
            vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello"), Hang],
            "200 3 complete",
        ),
        (
            "stalls in the body",
            vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"), Hang],
            "200 5 read_timeout",
        ),
        (
            "chunked",
            vec![Head, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Hang],
            "200 5 complete",
        ),
        (
            "chunked, closed early",
            vec![Head, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")],
            "200 5 response_truncated",
        ),
        (
            "bad chunk size",
            vec![Head, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"), Hang],
            "200 0 chunk_size",
        ),
        (
            "bad chunk end",
            vec![Head, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n"), Hang],
            "200 5 chunk_end",
        ),
        ("until close", vec![Head, Send("HTTP/1.1 200 OK\r\n\r\nhello")], "200 5 complete"),
        ("HTTP/1.0", vec![Head, Send("HTTP/1.0 200 OK\r\n\r\nhello")], "200 5 complete"),
        ("no body by status", vec![Head, Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang], "204 0 complete"),
        (
            "not modified",
            vec![Head, Send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), Hang],
            "304 0 complete",
        ),
        ("HTTP/0.9", vec![Head, Send("hello")], "status_line No"),
        ("garbage", vec![Head, Send("\x01\x02\x03 nonsense\r\n\r\n")], "status_line No"),
        ("obs-fold", vec![Head, Send("HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n")], "obs_fold No"),
        (
            "length and coding",
            vec![
                Head,
                Send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                ),
            ],
            "te_with_cl No",
        ),
        (
            "two lengths",
            vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")],
            "cl_repeated No",
        ),
        (
            "strange coding",
            vec![Head, Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")],
            "te_not_chunked No",
        ),
        (
            "unasked upgrade",
            vec![Head, Send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), Hang],
            "switch_not_asked No",
        ),
        (
            "too many bytes of head",
            vec![Head, Send("HTTP/1.1 200 OK\r\nX-A: "), Repeat("0123456789", 10_240), Hang],
            "response_header_too_large No",
        ),
        (
            "too many fields",
            vec![Head, Send("HTTP/1.1 200 OK\r\n"), Repeat("X-A: 1\r\n", 101), Send("\r\n"), Hang],
            "response_header_too_large No",
        ),
        ("flood of 1xx", vec![Head, Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 200), Hang], "interim_flood No"),
        ("some 1xx", vec![Head, Repeat("HTTP/1.1 100 Continue\r\n\r\n", 3), Send(OK), Hang], "200 5 complete"),
    ];
    for (name, script, expected) in cases {
        let origin = Origin::start(vec![script]).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        assert_eq!(outcome(&worker, &pool, get()).await, expected, "{name}");
        assert_eq!(pool.endpoints[0].in_flight(), 0, "{name}");
        let fails = !expected.ends_with("complete");
        assert_eq!(pool.endpoints[0].counters().failures.len(), usize::from(fails), "{name}");
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

/// Answers that are wrong in one way each, whole and byte by byte. None is taken for complete, and none leaves a
/// connection behind.
#[tokio::test]
async fn a_hostile_answer_is_refused_by_name_and_poisons_nothing() {
    const PAGE: &str = "\r\nContent-Length: 5\r\n\r\nhello";
    let head = |text: &str| format!("HTTP/1.1 200 OK\r\n{text}{PAGE}");
    let chunks = |text: &str| format!("{CHUNKED}{text}");
    let cases: Vec<(String, &str)> = vec![
        (format!("\r\nHTTP/1.1 200 OK{PAGE}"), "status_line No"),
        (format!("ICY 200 OK{PAGE}"), "status_line No"),
        (format!("HTTP/1.2 200 OK{PAGE}"), "version No"),
        (format!("HTTP/2 200 OK{PAGE}"), "version No"),
        (format!("HTTP/1.1  200 OK{PAGE}"), "status_line No"),
        (format!("HTTP/1.1 2000 OK{PAGE}"), "status_line No"),
        (format!("HTTP/1.1 200\tOK{PAGE}"), "status_line No"),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello".into(), "bare_lf No"),
        (head("X-A: 1\nX-B: 2"), "bare_lf No"),
        (head("X-A: 1\rX-B: 2"), "field_value No"),
        (head("X-A: 1\0"), "field_value No"),
        (head("X-A : 1"), "space_before_colon No"),
        (head("X-A: 1\r\n\tfolded"), "obs_fold No"),
        (head(" X-A: 1"), "obs_fold No"),
        (head("X-A"), "field_without_colon No"),
        (head("X A: 1"), "field_name No"),
        (head("Content-Length: 5"), "cl_repeated No"),
        (head("Content-Length: 6"), "cl_repeated No"),
        (head("Transfer-Encoding: chunked"), "te_with_cl No"),
        (head("Transfer-Encoding: identity"), "te_with_cl No"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".into(), "cl_list No"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello".into(), "cl_invalid No"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello".into(), "cl_invalid No"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "te_repeated No",
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "te_in_http10 No"),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: gzip\r\n\r\n".into(), "te_not_chunked No"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".into(),
            "switch_not_asked No",
        ),
        (chunks("+1\r\na\r\n0\r\n\r\n"), "200 5 chunk_size"),
        (chunks("-1\r\na\r\n0\r\n\r\n"), "200 5 chunk_size"),
        (chunks("0x1\r\na\r\n0\r\n\r\n"), "200 5 chunk_size"),
        (chunks("1 \r\na\r\n0\r\n\r\n"), "200 5 chunk_size"),
        (chunks("11111111111111111\r\na"), "200 5 chunk_size"),
        (chunks("\r\n"), "200 5 chunk_size"),
        (chunks("1\na\r\n0\r\n\r\n"), "200 5 bare_lf"),
        (chunks("1\r\nab\r\n0\r\n\r\n"), "200 6 chunk_end"),
        (chunks(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300))), "200 5 chunk_line_long"),
        (chunks(&format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(30)), "200 25 chunk_extensions"),
        (chunks("0\r\nX A: 1\r\n\r\n"), "200 5 trailers"),
        (chunks(&format!("0\r\n{}\r\n", "X-A: 1\r\n".repeat(40))), "200 5 too_many_trailers"),
        (chunks(&format!("0\r\nX-A: {}\r\n\r\n", "1".repeat(9000))), "200 5 trailers_too_large"),
    ];
    for (answer, expected) in cases {
        let answer: &'static str = answer.leak();
        let ways = [vec![Head, Send(answer), Hang], vec![Head, Trickle(answer), Hang]];
        for way in ways.into_iter().take(if answer.len() < 500 { 2 } else { 1 }) {
            let origin = Origin::start(vec![way]).await;
            let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
            assert_eq!(outcome(&worker, &pool, get()).await, expected, "{answer:?}");
            assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (0, 0), "{answer:?}");
            assert_eq!(pool.endpoints[0].counters().failures, [("malformed_response", 1)], "{answer:?}");
        }
    }
}

/// An answer that is cut anywhere is never taken for complete, unless it ends with its connection.
#[tokio::test]
async fn a_cut_answer_never_looks_complete() {
    let whole = [OK, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n"];
    for whole in whole {
        let scripts = (0..whole.len()).map(|end| vec![Head, Send(&whole[..end])]).collect();
        let origin = Origin::start(scripts).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        for end in 0..whole.len() {
            let outcome = outcome(&worker, &pool, get()).await;
            let named = outcome == "connection_closed IfIdempotent" || outcome.ends_with("response_truncated");
            assert!(named, "{:?}: {outcome}", &whole[..end]);
            assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (0, 0));
        }
    }
}

#[tokio::test]
async fn what_real_origins_do_is_taken() {
    let cases: Vec<(&str, Vec<Act>, &str)> = vec![
        ("no reason", vec![Head, Send("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"), Hang], "200 5 complete"),
        ("unknown status", vec![Head, Send("HTTP/1.1 799 \r\nContent-Length: 5\r\n\r\nhello"), Hang], "799 5 complete"),
        ("Latin-1", vec![Head, Send("HTTP/1.1 200 ÉTÉ\r\nX: é\r\nContent-Length: 0\r\n\r\n"), Hang], "200 0 complete"),
        (
            "length of nothing",
            vec![Head, Send("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), Hang],
            "204 0 complete",
        ),
        ("empty until close", vec![Head, Send("HTTP/1.1 200 OK\r\n\r\n")], "200 0 complete"),
        ("reset instead of closed", vec![Head, Send("HTTP/1.1 200 OK\r\n\r\nhello"), Reset], "200 5 connection_reset"),
        (
            "HTTP/1.0 with a length",
            vec![Head, Send("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Hang],
            "200 5 complete",
        ),
        (
            "chunked byte by byte",
            vec![Head, Trickle(CHUNKED), Trickle("0\r\nX-Sum: 9\r\n\r\n"), Hang],
            "200 5 complete",
        ),
        (
            "chunks and more",
            vec![Head, Send(CHUNKED), Repeat("3;a=b\r\nabc\r\n", 300), Send("0\r\n\r\n"), Hang],
            "200 905 complete",
        ),
        (
            "large",
            vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"), Repeat("0123456789", 300_000), Hang],
            "200 3000000 complete",
        ),
    ];
    for (name, script, expected) in cases {
        let origin = Origin::start(vec![script]).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        assert_eq!(outcome(&worker, &pool, get()).await, expected, "{name}");
        assert_eq!(pool.endpoints[0].in_flight(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_finished_connection_is_used_again_and_an_unfit_one_is_not() {
    let cases: Vec<(&str, Vec<Act>, u32)> = vec![
        ("kept", vec![Head, Send(OK), Head, Send(OK), Hang], 1),
        ("kept after no body", vec![Head, Send("HTTP/1.1 204 No Content\r\n\r\n"), Head, Send(OK), Hang], 1),
        (
            "origin says close",
            vec![Head, Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), Hang],
            2,
        ),
        (
            "HTTP/1.0",
            vec![Head, Send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"), Hang],
            2,
        ),
        ("more than announced", vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello"), Hang], 2),
        ("a body behind a 204", vec![Head, Send("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), Hang], 2),
        ("a blank line too many", vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n"), Hang], 2),
        ("two answers to one request", vec![Head, Repeat(OK, 2), Hang], 2),
        (
            "close among others",
            vec![Head, Send("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n"), Hang],
            2,
        ),
        ("kept after chunks", vec![Head, Send(CHUNKED), Send("0\r\n\r\n"), Head, Send(OK), Hang], 1),
        (
            "kept after 304",
            vec![Head, Send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), Head, Send(OK), Hang],
            1,
        ),
    ];
    for (name, script, connections) in cases {
        let origin = Origin::start(vec![script]).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        for _ in 0..2 {
            assert!(outcome(&worker, &pool, get()).await.ends_with("complete"), "{name}");
        }
        assert_eq!(origin.accepted(), connections, "{name}");
        assert_eq!(pool.endpoints[0].counters().reuses, u64::from(connections == 1), "{name}");
    }
}

#[tokio::test]
async fn idle_connections_are_bounded_in_number_and_age() {
    let origin = Origin::start(vec![vec![Head, Send(OK), Hang]]).await;
    let pool = pool(&[origin.address], |params| params.keep_alive.idle = 1);
    let worker = Rc::new(Connections::new());
    let (first, second) = tokio::join!(outcome(&worker, &pool, get()), outcome(&worker, &pool, get()));
    assert_eq!((first.as_str(), second.as_str()), ("200 5 complete", "200 5 complete"));
    assert_eq!((origin.accepted(), worker.idle()), (2, 1));
    let now = Clock::System.now();
    worker.sweep(now);
    assert_eq!(worker.idle(), 1);
    worker.sweep(now.plus(pool.params.keep_alive.timeout + Duration::from_secs(1)));
    assert_eq!(worker.idle(), 0);
}

#[tokio::test]
async fn idle_connections_go_when_the_origin_closes_and_when_their_endpoint_leaves() {
    let close = Arc::new(Notify::new());
    let origin = Origin::start(vec![vec![Head, Send(OK), Await(Arc::clone(&close))], vec![Head, Send(OK), Hang]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    assert_eq!(outcome(&worker, &pool, get()).await, "200 5 complete");
    assert_eq!(worker.idle(), 1);
    close.notify_one();
    until(|| {
        worker.sweep(Clock::System.now());
        worker.idle() == 0
    })
    .await;
    assert_eq!(outcome(&worker, &pool, get()).await, "200 5 complete");
    worker.follow(&[Arc::clone(&pool)]);
    assert_eq!(worker.idle(), 1);
    worker.follow(&[]);
    assert_eq!(worker.idle(), 0);
}

#[tokio::test]
async fn a_reused_connection_that_dies_unanswered_is_stale() {
    let closes_on_the_second = vec![Head, Send(OK), Head, Reset];
    let cases: Vec<(OutRequest, &str)> = vec![
        (get(), "connection_reset StaleConnection"),
        (request(Method::POST, Body::full("small")), "connection_reset StaleConnection"),
        (stalling_upload([Ok(Frame::data(Bytes::from_static(b"gone")))]), "connection_reset No"),
    ];
    for (second, expected) in cases {
        let origin = Origin::start(vec![closes_on_the_second.clone()]).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        assert_eq!(outcome(&worker, &pool, get()).await, "200 5 complete");
        assert_eq!(outcome(&worker, &pool, second).await, expected);
        let failures = pool.endpoints[0].counters().failures.len();
        assert_eq!((pool.endpoints[0].in_flight(), failures), (0, usize::from(expected.ends_with("No"))));
    }
}

#[tokio::test]
async fn a_stale_request_comes_back_as_it_was() {
    let origin = Origin::start(vec![vec![Head, Send(OK), Head], vec![Head, Read(5), Send(OK), Hang]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    assert_eq!(outcome(&worker, &pool, get()).await, "200 5 complete");
    let mut request = request(Method::PUT, Body::full("small"));
    let slot = worker.pick(&pool, &Wanted::default()).unwrap();
    assert!(worker.send(&pool, slot, &mut request, true).await.unwrap_err().replayable);
    let slot = worker.pick(&pool, &Wanted::default()).unwrap();
    let answer = worker.send(&pool, slot, &mut request, false).await.unwrap();
    assert_eq!(drain(answer.response.body).await.0, 5);
    assert_eq!(origin.last_head(), "PUT /a?b=c HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 5\r\n\r\n");
}

#[tokio::test]
async fn the_origin_sees_clear_framing_and_the_host_it_should() {
    let preserve = HostHeader::Preserve;
    let lying = || {
        let mut request = get();
        request.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        request.headers.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        request
    };
    let one_frame = || [Ok(Frame::data(Bytes::from_static(b"x")))];
    let named = HostHeader::Name("inner.example".into());
    let cases = [
        (preserve.clone(), lying(), "GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\n\r\n"),
        (named, get(), "GET /a?b=c HTTP/1.1\r\nhost: inner.example\r\n\r\n"),
        (
            preserve.clone(),
            request(Method::POST, Body::Empty),
            "POST /a?b=c HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            preserve.clone(),
            request(Method::GET, Body::full("x")),
            "GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 1\r\n\r\n",
        ),
        (
            preserve,
            stalling_upload(one_frame()),
            "POST /a?b=c HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
    ];
    for (host, request, expected) in cases {
        let origin = Origin::start(vec![vec![Head, Send(OK), Hang]]).await;
        let pool = pool(&[origin.address], |params| params.host = host);
        assert_eq!(outcome(&Rc::new(Connections::new()), &pool, request).await, "200 5 complete");
        assert_eq!(origin.last_head(), expected);
    }
    let origin = Origin::start(vec![vec![Head, Send(OK), Hang]]).await;
    let pool = pool(&[origin.address], |params| params.host = HostHeader::Endpoint);
    assert_eq!(outcome(&Rc::new(Connections::new()), &pool, get()).await, "200 5 complete");
    assert!(origin.last_head().contains(&format!("host: {}\r\n", origin.address)));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_arrives_and_the_connection_goes() {
    const REFUSED: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    for after in [Hang, Reset, Read(1)] {
        let origin = Origin::start(vec![vec![Head, Read(64 * 1024), Send(REFUSED), after]]).await;
        let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
        let upload = request(Method::POST, Body::stream(Endless));
        assert_eq!(outcome(&worker, &pool, upload).await, "413 2 complete");
        assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn an_origin_that_takes_no_body_is_cut_off() {
    let origin = Origin::start(vec![vec![Head, Stall]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    let upload = request(Method::POST, Body::stream(Endless));
    assert_eq!(outcome(&worker, &pool, upload).await, "write_timeout No");
    assert_eq!(pool.endpoints[0].in_flight(), 0);
}

#[tokio::test]
async fn a_slow_upload_is_not_the_origins_silence() {
    let origin = Origin::start(vec![vec![Head, Hang]]).await;
    let bound = Duration::from_millis(20);
    let pool = pool(&[origin.address], |params| {
        (params.timeouts.first_byte, params.timeouts.idle) = (bound, bound);
    });
    let worker = Rc::new(Connections::new());
    let upload = stalling_upload([Ok(Frame::data(Bytes::from_static(b"half")))]);
    let patient = tokio::time::timeout(4 * bound, send(&worker, &pool, upload)).await;
    assert!(patient.is_err(), "how long a client may take is for the listener to say");
    assert_eq!(pool.endpoints[0].in_flight(), 0);
}

#[tokio::test]
async fn what_a_client_takes_to_send_is_not_the_origins_latency() {
    let origin = Origin::start(vec![vec![Head, Read(14), Send(OK), Hang]]).await;
    let worker = Rc::new(Connections::new());
    let pool = pool(&[origin.address], |params| params.balance = Balance::PeakEwma);
    assert_eq!(outcome(&worker, &pool, slow_upload()).await, "200 5 complete");
    let known = Duration::from_micros(pool.endpoints[0].estimated_latency().into());
    assert!(known > Duration::ZERO && known < SLOW / 2, "{known:?}");
}

#[tokio::test]
async fn an_origin_that_owes_an_answer_does_not_become_the_favourite() {
    let origin = Origin::start(vec![vec![Head, Hang]]).await;
    let worker = Rc::new(Connections::new());
    let pool = pool(&[origin.address], |params| params.balance = Balance::PeakEwma);
    let endpoint = &pool.endpoints[0];
    // Given up, of one that nothing is known of.
    assert!(tokio::time::timeout(Duration::from_millis(20), send(&worker, &pool, get())).await.is_err());
    assert!(endpoint.estimated_latency() >= 20_000, "it takes longer than that");
    // Known to be slow, but that was three decay times ago.
    let long_ago = moment::present().wrapping_sub(30_000);
    endpoint.observe_latency(Duration::from_millis(10_000), false, long_ago);
    assert!((450_000..510_000).contains(&endpoint.estimated_latency()));
    let mut asking = Box::pin(send(&worker, &pool, get()));
    assert!(futures_util::FutureExt::now_or_never(asking.as_mut()).is_none());
    assert_eq!(endpoint.estimated_latency(), 10_000_000, "while it is waited for, time does not heal");
    drop(asking);
    assert!(endpoint.estimated_latency() < 510_000);
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn what_is_under_way_does_not_queue_behind_what_has_not_begun() {
    let worker = Rc::new(Connections::new());
    let pool = pool(&["127.0.0.1:1".parse().unwrap()], |params| params.max_in_flight = Some(2));
    let _waiting = pool.room.join(1).expect("a place");
    assert!(worker.pick(&pool, &Wanted::default()).is_err(), "a newcomer waits");
    // The silent retry has tried nobody.
    assert!(worker.pick(&pool, &Wanted { under_way: true, ..Wanted::default() }).is_ok());
}

#[tokio::test]
async fn the_clients_failure_is_not_the_origins() {
    let gone = ProxyError::new(ErrorKind::BodyTimeout, Stage::Listener);
    let frames = || [Ok(Frame::data(Bytes::from_static(b"half"))), Err(gone)];
    let origin = Origin::start(vec![vec![Head, Hang]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    assert_eq!(outcome(&worker, &pool, stalling_upload(frames())).await, "body_timeout No");
    assert_eq!((pool.endpoints[0].in_flight(), pool.endpoints[0].counters().failures.len()), (0, 0));
}

#[tokio::test]
async fn a_total_bounds_the_whole_exchange() {
    let dribble = vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhello"), Hang];
    let origin = Origin::start(vec![dribble]).await;
    let pool = pool(&[origin.address], |params| {
        params.timeouts.total = Some(Duration::from_millis(100));
        params.timeouts.idle = Duration::from_secs(10);
    });
    assert_eq!(outcome(&Rc::new(Connections::new()), &pool, get()).await, "200 5 total_timeout");
}

#[tokio::test]
async fn a_slow_client_is_not_the_origins_silence() {
    let half = vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"), Hang];
    let origin = Origin::start(vec![half]).await;
    let pool = pool(&[origin.address], |params| params.timeouts.idle = Duration::from_millis(20));
    let mut body = send(&Rc::new(Connections::new()), &pool, get()).await.unwrap().response.body;
    assert!(body.frame().await.unwrap().is_ok());
    let began = Clock::System.now();
    until(|| Clock::System.now().since(began) > 2 * pool.params.timeouts.idle).await;
    let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
    assert!(polled.is_pending(), "the silence begins when somebody listens");
    assert_eq!(drain(body).await.2, Some(ErrorKind::ReadTimeout));
}

#[tokio::test]
async fn trailers_and_interim_heads_are_passed_on() {
    let origin = Origin::start(vec![vec![
        Head,
        Send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"),
        Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n"),
        Hang,
    ]])
    .await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    let request = get();
    let interim = request.interim.clone();
    let answer = send(&worker, &pool, request).await.unwrap();
    let (status, headers) = interim.take().unwrap();
    assert_eq!((status.as_u16(), headers["link"].as_bytes()), (103, b"</a.css>".as_slice()));
    assert!(interim.take().is_none(), "100 is for our hop");
    let (bytes, trailers, error) = drain(answer.response.body).await;
    assert_eq!((bytes, trailers.unwrap()["x-sum"].as_bytes(), error), (5, b"9".as_slice(), None));
    assert_eq!(worker.idle(), 1);
}

#[tokio::test]
async fn a_head_answer_says_what_get_would_send() {
    let origin = Origin::start(vec![vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Hang]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    let answer = send(&worker, &pool, request(Method::HEAD, Body::Empty)).await.unwrap();
    assert_eq!((answer.response.content_length, answer.response.body.exact_len()), (Some(5), Some(0)));
    assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (1, 0));
}

#[tokio::test]
async fn an_upgrade_leaves_http_and_holds_its_slot() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly";
    let origin = Origin::start(vec![vec![Head, Send(SWITCH), Echo]]).await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    let mut request = get();
    request.upgrade = true;
    request.headers.insert(http::header::UPGRADE, HeaderValue::from_static("echo"));
    request.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    let answer = send(&worker, &pool, request).await.unwrap();
    assert!(origin.last_head().contains("connection: upgrade\r\n"));
    let mut tunnel = answer.response.upgrade.unwrap();
    let mut early = tunnel.read_ahead.to_vec();
    while early.len() < 5 {
        tunnel.io.read_buf(&mut early).await.unwrap();
    }
    tunnel.io.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    tunnel.io.read_exact(&mut echo).await.unwrap();
    assert_eq!((early.as_slice(), &echo), (b"early".as_slice(), b"ping"));
    assert_eq!(pool.endpoints[0].in_flight(), 1);
    drop(tunnel);
    assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (0, 0));
}

#[tokio::test]
async fn letting_go_frees_the_slot_at_once() {
    let origin = Origin::start(vec![
        vec![Head, Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"), Hang],
        vec![Head, Hang],
    ])
    .await;
    let (worker, pool) = (Rc::new(Connections::new()), pool(&[origin.address], |_| ()));
    let answer = send(&worker, &pool, get()).await.unwrap();
    assert_eq!(pool.endpoints[0].in_flight(), 1);
    drop(answer);
    assert_eq!(pool.endpoints[0].in_flight(), 0, "a body that is not wanted any more");
    {
        let mut waiting = std::pin::pin!(send(&worker, &pool, get()));
        let polled = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        assert_eq!(pool.endpoints[0].in_flight(), 1);
    }
    assert_eq!((worker.idle(), pool.endpoints[0].in_flight()), (0, 0), "a client that left while we waited");
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_leaves_the_request_untouched() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cases = [
        (Address::Ip(address), "connect_refused NothingSent"),
        (Address::Unix("/nonexistent/origin.sock".into()), "connect_refused NothingSent"),
        (Address::Name("origin.invalid".into(), 80), "dns_error NothingSent"),
    ];
    for (address, expected) in cases {
        let pool = pool(&[SocketAddr::from(([127, 0, 0, 1], 1))], |params| {
            params.endpoints[0].address = address;
            params.timeouts.connect = Duration::from_secs(5);
        });
        let _asking = following(&pool);
        let upload = stalling_upload([Ok(Frame::data(Bytes::from_static(b"precious")))]);
        assert_eq!(outcome(&Rc::new(Connections::new()), &pool, upload).await, expected);
        assert_eq!(pool.endpoints[0].in_flight(), 0);
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_its_answer_kept() {
    let origin = Origin::start(vec![vec![Head, Send(OK), Hang]]).await;
    let pool = pool(&[origin.address], |params| {
        params.endpoints[0].address = Address::Name("localhost".into(), origin.address.port());
    });
    let _asking = following(&pool);
    assert_eq!(outcome(&Rc::new(Connections::new()), &pool, get()).await, "200 5 complete");
    assert!(pool.endpoints[0].names.addresses().await.0.contains(&origin.address));
}

#[tokio::test]
async fn a_unix_socket_is_an_origin_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    });
    let pool = pool(&[SocketAddr::from(([127, 0, 0, 1], 1))], |params| {
        params.endpoints[0].address = Address::Unix(path);
    });
    assert_eq!(outcome(&Rc::new(Connections::new()), &pool, get()).await, "200 5 complete");
}

/// The pool of one TLS origin.
fn secure(origin: &Origin, spec: TlsSpec) -> Arc<Pool> {
    let plain = pool(&[origin.address], |_| ());
    let tls = ClientTls::build(spec).unwrap();
    Arc::new(Pool::build(plain.params.clone(), Some(Arc::new(tls)), None, &farm()))
}

#[tokio::test]
async fn origins_are_verified_unless_told_otherwise() {
    enum Trust {
        Own,
        Foreign,
        Anyone,
    }
    use Trust::{Anyone, Foreign, Own};
    let script = || vec![vec![Head, Send(OK), Head, Send(OK), Hang]];
    let foreign = Origin::start_tls(script(), false).await.certificate;
    let cases = [
        ("private CA and name", false, Own, Some("origin.example"), "200 5 complete"),
        ("another name", false, Own, Some("other.example"), "tls_certificate NothingSent"),
        ("no name: the address", false, Own, None, "tls_certificate NothingSent"),
        ("foreign CA", false, Foreign, Some("origin.example"), "tls_certificate NothingSent"),
        ("insecure", false, Anyone, Some("other.example"), "200 5 complete"),
        ("asked for a certificate, has none", true, Anyone, None, "tls_handshake No"),
    ];
    for (name, asks, trust, server_name, expected) in cases {
        let origin = Origin::start_tls(script(), asks).await;
        let ca_pem = match trust {
            Own => Some(origin.certificate.clone()),
            Foreign => Some(foreign.clone()),
            Anyone => None,
        };
        let server_name = server_name.map(str::to_owned);
        let spec = TlsSpec { insecure: ca_pem.is_none(), ca_pem, server_name, ..TlsSpec::default() };
        let (worker, pool) = (Rc::new(Connections::new()), secure(&origin, spec));
        assert_eq!(outcome(&worker, &pool, get()).await, expected, "{name}");
        assert_eq!(pool.endpoints[0].in_flight(), 0, "{name}");
        if expected.ends_with("complete") {
            assert_eq!(outcome(&worker, &pool, get()).await, expected, "{name}");
            assert_eq!(origin.accepted(), 1, "{name}: the connection is kept");
        }
    }
    let plain = Origin::start(vec![vec![Head, Send(OK)]]).await;
    let pool = secure(&plain, TlsSpec { insecure: true, ..TlsSpec::default() });
    assert_eq!(outcome(&Rc::new(Connections::new()), &pool, get()).await, "tls_timeout NothingSent");
}

#[tokio::test]
async fn a_full_or_tried_endpoint_is_not_picked() {
    let addresses = [SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
    let pool = pool(&addresses, |params| params.endpoints[0].max_connections = Some(1));
    let worker = Connections::new();
    let elsewhere = Wanted { tried: &[1], ..Wanted::default() };
    let held = [elsewhere, Wanted::default(), Wanted::default()].map(|wanted| worker.pick(&pool, &wanted).unwrap());
    assert_eq!(held.each_ref().map(|slot| slot.index), [0, 1, 1]);
    assert!(worker.pick(&pool, &elsewhere).is_err());
}

#[tokio::test]
async fn live_state_survives_a_reload_that_keeps_the_address() {
    let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let tls = || Some(Arc::new(ClientTls::build(TlsSpec { insecure: true, ..TlsSpec::default() }).unwrap()));
    let before = Pool::build(pool(&addresses[..2], |_| ()).params.clone(), tls(), None, &farm());
    let after = Pool::build(pool(&addresses[1..], |_| ()).params.clone(), tls(), Some(&before), &farm());
    assert_eq!(after.id, before.id);
    assert!(Arc::ptr_eq(&after.endpoints[0], &before.endpoints[1]), "the address stayed");
    assert!(before.endpoints.iter().all(|old| old.id() != after.endpoints[1].id()), "the address is new");
    assert!(Arc::ptr_eq(after.tls.as_ref().unwrap(), before.tls.as_ref().unwrap()), "sessions are kept");
}

#[tokio::test]
async fn probes_lower_and_raise_an_endpoint_and_let_go() {
    const SICK: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let [sick, well] = [SICK, OK].map(|answer| vec![Head, Send(answer)]);
    let origin = Origin::start(vec![sick.clone(), sick.clone(), vec![Head, Reset], well, sick]).await;
    let watched = |path: &str| HealthParams {
        kind: ProbeKind::Http { path: path.into(), expect: vec![200..=399], expect_body: None },
        interval: Duration::from_millis(5),
        fast_interval: Duration::from_millis(5),
        timeout: Duration::from_millis(300),
        rise: 1,
        fall: 3,
    };
    let first = pool(&[origin.address], |params| params.health = Some(watched("/healthz")));
    let endpoint = &first.endpoints[0];
    let mut probes = Probes::new(tokio::runtime::Handle::current());
    probes.follow(&[Arc::clone(&first)]);
    until(|| !endpoint.healthy()).await;
    assert_eq!(origin.last_head().lines().next(), Some("GET /healthz HTTP/1.1"));
    until(|| endpoint.healthy()).await;
    let found: Vec<_> = endpoint.probes().into_iter().take(4).map(|probe| (probe.status, probe.fault)).collect();
    let unexpected = (Some(503), Some("unexpected_status"));
    assert_eq!(found, [unexpected, unexpected, (None, Some("connection_reset")), (Some(200), None)]);
    until(|| !endpoint.healthy()).await;

    let mut unwatched = first.params.clone();
    unwatched.health = None;
    probes.follow(&[Arc::new(Pool::build(unwatched, None, Some(&first), &farm()))]);
    until(|| endpoint.healthy()).await;
    drop(probes);
    until(|| Arc::strong_count(endpoint) == 1).await;
}
