//! What driver tests share: a runtime with paused time, a scripted handler, a connection over an in-memory pipe.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};

use super::connection::Connection;
use super::gate::Gate;
use super::lifecycle::Lifecycle;
use super::{Handler, Limits, Phase, Sent, Settings, Timeouts, http1, http2};
use crate::body::{Body, Peer, Request, Response, Source, Upgrade};
use crate::clock::Clock;
use crate::error::{ErrorKind, ProxyError, Stage};

/// Runs a test on a local runtime whose clock jumps to the next timer when nothing else is left to do.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(test)
}

/// The same on the machine's own clock, for tests over real sockets.
pub(super) fn run_in_real_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(test)
}

pub(super) fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        name: "test".into(),
        h2: true,
        http1: true,
        proxy_protocol: None,
        trusted_proxies: Vec::new(),
        timeouts: Timeouts {
            handshake: seconds(10),
            headers: seconds(10),
            body: seconds(30),
            write: seconds(30),
            idle: seconds(60),
        },
        limits: Limits { header_bytes: 4096, headers: 20, uri: 256, streams: 10, connections_per_client: 100 },
        tls: None,
    }
}

/// Answers by the path of the request; see [`Scripted::answer`].
#[derive(Clone, Default)]
pub(super) struct Scripted {
    /// What [`Handler::sent`] was given.
    pub(super) sent: Rc<RefCell<Vec<Sent>>>,
    /// Handler futures that were dropped before they answered.
    pub(super) abandoned: Rc<Cell<usize>>,
}

/// Counts itself unless defused.
struct Abandoned(Rc<Cell<usize>>, bool);

impl Abandoned {
    fn defuse(mut self) {
        self.1 = false;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.set(self.0.get() + usize::from(self.1));
    }
}

impl Handler for Scripted {
    type Record = ();

    fn handle(&self, _peer: Rc<Peer>, request: Request) -> impl Future<Output = (Response, ())> + 'static {
        let abandoned = Abandoned(Rc::clone(&self.abandoned), true);
        async move {
            let response = Self::answer(request).await;
            abandoned.defuse();
            (response, ())
        }
    }

    fn refuse(&self, _peer: &Rc<Peer>, error: ProxyError) -> (Response, ()) {
        let row = error.kind.row();
        (Response::new(row.status, Body::full(row.reason)), ())
    }

    fn sent(&self, (): (), sent: Sent) {
        self.sent.borrow_mut().push(sent);
    }
}

impl Scripted {
    async fn answer(request: Request) -> Response {
        let path = String::from_utf8_lossy(&request.target).into_owned();
        let ok = |body| Response::new(StatusCode::OK, body);
        match path.as_str() {
            "/early" => Response::new(StatusCode::PAYLOAD_TOO_LARGE, Body::full("too large")),
            "/never" => std::future::pending().await,
            "/interim" => {
                let mut links = HeaderMap::new();
                links.insert("link", HeaderValue::from_static("</a.css>"));
                request.interim.send(StatusCode::EARLY_HINTS, links);
                tokio::time::sleep(Duration::from_millis(1)).await;
                ok(Body::full("after hints"))
            }
            "/pieces" => ok(Body::stream(Pieces::new(["one ", "two ", "three"]))),
            "/trailers" => {
                let mut pieces = Pieces::new(["body"]);
                pieces.trailers.insert("x-sum", HeaderValue::from_static("42"));
                ok(Body::stream(pieces))
            }
            "/broken" => ok(Body::stream(Pieces { broken: true, ..Pieces::new(["half"]) })),
            "/short" => ok(Body::stream(Pieces { announced: Some(10), ..Pieces::new(["half"]) })),
            "/long" => ok(Body::stream(Pieces { announced: Some(2), ..Pieces::new(["half"]) })),
            "/large" => ok(Body::full(vec![b'x'; 1 << 20])),
            "/empty" => Response::new(StatusCode::NO_CONTENT, Body::Empty),
            "/not-modified" => {
                Response { content_length: Some(9), ..Response::new(StatusCode::NOT_MODIFIED, Body::Empty) }
            }
            "/close" => Response { close: true, ..ok(Body::full("bye")) },
            "/duplex" => ok(Body::stream(Forward(request.body))),
            "/upgrade" => upgrade().await,
            "/slow-reader" => slow_reader(request.body).await,
            _ => echo(request).await,
        }
    }
}

/// `METHOD authority target body` and the names and values of trailers.
async fn echo(mut request: Request) -> Response {
    let mut text = format!("{} {} {} ", request.method, request.authority, String::from_utf8_lossy(&request.target));
    for name in ["cookie", "host"] {
        if request.headers.contains_key("x-show-fields")
            && let Some(value) = request.headers.get(name)
        {
            text.push_str(&format!("{name}={} ", value.to_str().unwrap_or("?")));
        }
    }
    while let Some(frame) = request.body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
            Ok(Err(frame)) => {
                let fields = frame.into_trailers().unwrap_or_default();
                fields
                    .iter()
                    .for_each(|(name, value)| text.push_str(&format!(" {name}={}", value.to_str().unwrap_or("?"))));
            }
            Err(error) => {
                let row = error.kind.row();
                return Response::new(row.status, Body::full(row.reason));
            }
        }
    }
    Response::new(StatusCode::OK, Body::full(text))
}

/// Looks for more body once, and then only after longer than any silence a client is allowed.
async fn slow_reader(mut body: Body) -> Response {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
        let waits = std::future::poll_fn(|cx| {
            Poll::Ready(http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx).is_pending())
        });
        if waits.await {
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
    }
    Response::new(StatusCode::OK, Body::full(text))
}

/// Leaves HTTP for a peer that says hello and then sends everything back, until its input ends.
async fn upgrade() -> Response {
    let (ours, mut origin) = duplex(1024);
    tokio::task::spawn_local(async move {
        let (mut read, mut write) = tokio::io::split(&mut origin);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.write_all(b"!").await;
        let _ = write.shutdown().await;
    });
    let upgrade = Upgrade {
        io: Box::new(ours),
        read_ahead: Bytes::from_static(b"hello "),
        idle: Duration::from_secs(5),
        guard: Box::new(()),
    };
    Response { upgrade: Some(Box::new(upgrade)), ..Response::new(StatusCode::SWITCHING_PROTOCOLS, Body::Empty) }
}

/// A body that yields its pieces one poll apart.
struct Pieces {
    pieces: VecDeque<&'static str>,
    trailers: HeaderMap,
    announced: Option<u64>,
    broken: bool,
    ready: bool,
}

impl Pieces {
    fn new<const N: usize>(pieces: [&'static str; N]) -> Self {
        Self { pieces: pieces.into(), trailers: HeaderMap::new(), announced: None, broken: false, ready: false }
    }
}

impl Source for Pieces {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        self.ready = !self.ready;
        if self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.pop_front() {
            self.announced = self.announced.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))));
        }
        if std::mem::take(&mut self.broken) {
            let error = ProxyError::new(ErrorKind::ResponseTruncated, Stage::Forward);
            return Poll::Ready(Some(Err(error)));
        }
        let trailers = std::mem::take(&mut self.trailers);
        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The request body as the response body: both directions flow at once.
struct Forward(Body);

impl Source for Forward {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        http_body::Body::poll_frame(std::pin::Pin::new(&mut self.0), cx)
    }
}

/// A server behind a pipe.
pub(super) struct Served {
    pub(super) client: DuplexStream,
    pub(super) handler: Scripted,
    pub(super) gate: Arc<Gate>,
    lifecycle: Rc<Lifecycle>,
}

/// The driver at the far end of the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

impl Served {
    /// Starts a driver in a task of its own.
    pub(super) fn start(speaks: Speaks, settings: Settings) -> Self {
        let (client, server) = duplex(64 * 1024);
        let (handler, gate, lifecycle) = (Scripted::default(), Gate::new(1), Rc::new(Lifecycle::default()));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer { listener: settings.name.clone(), client: address, local: address, trusted: false, tls: None };
        let connection = Connection {
            peer: Rc::new(peer),
            settings: Arc::new(settings),
            handler: handler.clone(),
            seat: lifecycle.seat(),
            clock: Clock::System,
            gate: Arc::clone(&gate),
        };
        tokio::task::spawn_local(async move {
            match speaks {
                Speaks::Http1 => http1::serve(server, BytesMut::new(), connection).await,
                Speaks::Http2 => http2::serve(server, BytesMut::new(), connection).await,
            }
        });
        Self { client, handler, gate, lifecycle }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.lifecycle.enter(phase);
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.expect("the server reads");
    }

    /// Reads until `end` has been seen.
    pub(super) async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let byte = self.client.read_u8().await;
            match byte {
                Ok(byte) => text.push(char::from(byte)),
                Err(_) => panic!("the connection ended after {text:?}"),
            }
        }
        text
    }

    /// Reads to the end of the connection.
    pub(super) async fn read_to_end(&mut self) -> String {
        read_to_end(&mut self.client).await
    }

    /// Waits until the driver has finished.
    pub(super) async fn finished(&self) {
        std::future::poll_fn(|cx| self.lifecycle.poll_empty(cx)).await;
    }
}

pub(super) async fn read_to_end(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = from.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
