//! An origin that speaks HTTP/2 as it should, on the server of the `h2` crate: for what goes right.
//!
//! What breaks the protocol is written frame by frame, in [`super::frames`].

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::gate::{Gate, Watched};
use super::h2::fields;
use super::wire::Fields;

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub uri: String,
    pub fields: Fields,
    /// Empty while the script looks at it.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Extended CONNECT: what to.
    pub protocol: Option<String>,
    /// The request's end came, and not a reset.
    pub complete: bool,
}

/// What the origin does about a request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    interim: Vec<(u16, String, String)>,
    hold: Option<Gate>,
    echo: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..Self::new(200) }
    }

    /// Sends the request's body back while it comes, its trailers too.
    pub fn echo() -> Self {
        Self { echo: true, ..Self::new(200) }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    pub fn interim(mut self, status: u16, name: &str, value: &str) -> Self {
        self.interim.push((status, name.into(), value.into()));
        self
    }

    /// Says nothing before the gate opens.
    pub fn hold(self, gate: &Gate) -> Self {
        Self { hold: Some(gate.clone()), ..self }
    }
}

/// How the origin behaves as a whole.
#[derive(Debug, Clone, Default)]
pub struct Habits {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`
    pub streams: Option<u32>,
    /// Offers extended CONNECT, and sends back what comes on such a stream.
    pub extended: bool,
    /// Speaks TLS; the configuration names what ALPN may choose.
    pub tls: Option<Arc<ServerConfig>>,
    /// Requests a connection may bring before a graceful GOAWAY.
    pub requests: Option<usize>,
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    connections: usize,
    /// Streams open at once, the most there ever were, per connection.
    busiest: Vec<usize>,
    open: Vec<usize>,
    /// Streams that ended with a reset by the proxy.
    resets: usize,
}

/// A running origin; it dies with all its connections when dropped.
pub struct H2Origin {
    address: SocketAddr,
    state: Watched<State>,
    runtime: Option<Runtime>,
}

impl H2Origin {
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Habits::default(), script)
    }

    pub fn with(habits: Habits, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Watched::<State>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(accept(listener, habits, Arc::new(script), state.clone()));
        Self { address, state, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.read(|state| state.seen.clone())
    }

    pub fn connections(&self) -> usize {
        self.state.read(|state| state.connections)
    }

    /// The most streams any connection ever had at once.
    pub fn busiest(&self) -> usize {
        self.state.read(|state| state.busiest.iter().copied().max().unwrap_or(0))
    }

    /// Waits until so many streams are open, over all connections.
    #[track_caller]
    pub fn wait_open(&self, n: usize) {
        let found = self.state.wait(|state| (state.open.iter().sum::<usize>() >= n).then_some(()));
        found.unwrap_or_else(|| panic!("{n} open streams expected: {:?}", self.state.read(|state| state.open.clone())));
    }

    /// Waits until so many streams were reset by the proxy.
    #[track_caller]
    pub fn wait_resets(&self, n: usize) {
        self.state.wait(|state| (state.resets >= n).then_some(())).expect("streams are reset");
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, habits: Habits, script: Arc<Script>, state: Watched<State>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let number = state.update(|state| {
            state.connections += 1;
            state.busiest.push(0);
            state.open.push(0);
            state.connections - 1
        });
        let (habits, script, state) = (habits.clone(), script.clone(), state.clone());
        tokio::spawn(async move {
            match habits.tls.clone() {
                None => serve(socket, number, &habits, script, state).await,
                Some(config) => {
                    if let Ok(tls) = TlsAcceptor::from(config).accept(socket).await {
                        serve(tls, number, &habits, script, state).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    number: usize,
    habits: &Habits,
    script: Arc<Script>,
    state: Watched<State>,
) {
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = habits.streams {
        builder.max_concurrent_streams(streams);
    }
    if habits.extended {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    let mut taken = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        taken += 1;
        if habits.requests == Some(taken) {
            connection.graceful_shutdown();
        }
        state.update(|state| {
            state.open[number] += 1;
            state.busiest[number] = state.busiest[number].max(state.open[number]);
        });
        let (script, state) = (script.clone(), state.clone());
        tokio::spawn(async move {
            let whole = exchange(request, respond, &*script, &state).await;
            state.update(|state| {
                state.open[number] -= 1;
                state.resets += usize::from(whole.is_none());
            });
        });
    }
}

/// `None` when the stream was reset.
async fn exchange(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: &Script,
    state: &Watched<State>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut seen = Seen {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        fields: fields(&head.headers),
        protocol: head.extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned()),
        ..Seen::default()
    };
    let reply = script(&seen);
    if reply.echo {
        return echo(&reply, seen, body, respond, state).await;
    }
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        let _ = body.flow_control().release_capacity(piece.len());
        seen.body.extend_from_slice(&piece);
    }
    seen.trailers = body.trailers().await.ok()?.as_ref().map(fields).unwrap_or_default();
    seen.complete = true;
    state.update(|state| state.seen.push(seen.clone()));
    if let Some(gate) = reply.hold.clone() {
        let pass = tokio::task::spawn_blocking(move || gate.pass());
        tokio::select! {
            passed = pass => assert!(passed.unwrap(), "the gate stayed shut"),
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return None,
        }
    }
    for (status, name, value) in &reply.interim {
        let mut head = http::Response::builder().status(*status);
        head = head.header(name, value);
        respond.send_informational(head.body(()).unwrap()).ok()?;
    }
    let bodiless = reply.body.is_empty() && reply.trailers.is_empty();
    let mut stream = respond.send_response(response(&reply), bodiless || seen.method == "HEAD").ok()?;
    if bodiless || seen.method == "HEAD" {
        return Some(());
    }
    send(&mut stream, Bytes::from(reply.body.clone()), reply.trailers.is_empty()).await?;
    if !reply.trailers.is_empty() {
        stream.send_trailers(map(&reply.trailers)).ok()?;
    }
    Some(())
}

fn response(reply: &Reply) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = reply.status.try_into().unwrap();
    *head.headers_mut() = map(&reply.fields);
    head
}

fn map(pairs: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

async fn echo(
    reply: &Reply,
    mut seen: Seen,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    state: &Watched<State>,
) -> Option<()> {
    let mut stream = respond.send_response(response(reply), false).ok()?;
    if seen.protocol.is_some() {
        // A tunnel is on record from its beginning; its end may be a reset.
        state.update(|state| state.seen.push(seen.clone()));
    }
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        let _ = body.flow_control().release_capacity(piece.len());
        seen.body.extend_from_slice(&piece);
        send(&mut stream, piece, false).await?;
    }
    let trailers = body.trailers().await.ok()?;
    seen.complete = true;
    if seen.protocol.is_none() {
        state.update(|state| state.seen.push(seen));
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers).ok(),
        None if reply.trailers.is_empty() => stream.send_data(Bytes::new(), true).ok(),
        None => stream.send_trailers(map(&reply.trailers)).ok(),
    }
}

/// Sends as flow control allows.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        let part = bytes.split_to(room.min(bytes.len()));
        let last = end && bytes.is_empty();
        stream.send_data(part, last).ok()?;
    }
    Some(())
}
