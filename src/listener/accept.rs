//! One listening socket on one worker: accepts, greets (PROXY protocol, TLS), and starts the driver for what the client
//! speaks.
//!
//! Bounds: [`super::gate`] for the number of connections, `timeouts.handshake` for the greeting, [`BATCH`] accepts
//! between two turns of the connections. When descriptors run out it waits, longer each time, and never spins.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Connection;
use super::gate::{ConnectionGuard, Gate};
use super::lifecycle::{Lifecycle, Seat};
use super::transport::{ReadAhead, Transport};
use super::{Handler, Phase, Settings, contains, http1, http2, proxy_protocol};
use crate::body::http1::borrow_buffer;
use crate::body::{Peer, TlsPeer};
use crate::clock::Clock;

/// Connections the kernel keeps for us to accept.
const BACKLOG: i32 = 4096;
/// Accepts before the connections get a turn; a handshake is worth many requests.
const BATCH: usize = 4;
/// First and longest pause after an accept that failed for want of descriptors or memory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Silence before the kernel asks whether a client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long connections that were told to close now may take to do it.
const LAST_CALL: Duration = Duration::from_secs(1);
/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A listening socket for one worker. Workers share the address by `SO_REUSEPORT`; accepted sockets inherit `TCP_NODELAY`
/// and keep-alive.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves `socket` until the worker drains, or `settings` are gone, and the last connection with it; or until
/// [`Phase::Closing`]. Runs inside a `LocalRuntime`.
///
/// `settings` is asked for each connection, which keeps what it got to its end.
///
/// # Errors
///
/// The socket cannot be registered with the runtime.
pub async fn serve<H: Handler>(
    socket: StdListener,
    settings: impl Fn() -> Option<Arc<Settings>> + 'static,
    handler: H,
    gate: Arc<Gate>,
    mut phase: watch::Receiver<Phase>,
    clock: Clock,
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let lifecycle = Rc::new(Lifecycle::default());
    let door = Door { settings, handler, gate, clock, lifecycle: Rc::clone(&lifecycle) };
    door.accept_while_running(&listener, &mut phase).await;
    lifecycle.enter(Phase::Draining);
    // What the kernel has already accepted for us would be reset by closing the socket.
    for _ in 0..BACKLOG {
        let Some(Ok((stream, address))) = listener.accept().now_or_never() else { break };
        door.admit(stream, address);
    }
    drop(listener);
    let everybody_left = std::future::poll_fn(|cx| lifecycle.poll_empty(cx));
    let closing = async {
        // A sender that is gone cannot call for closing any more: then only the connections decide.
        if phase.wait_for(|phase| *phase == Phase::Closing).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = everybody_left => return Ok(()),
        () = closing => lifecycle.enter(Phase::Closing),
    }
    // Those that do not hear the call in time are dropped with the runtime.
    let _ = tokio::time::timeout(LAST_CALL, std::future::poll_fn(|cx| lifecycle.poll_empty(cx))).await;
    Ok(())
}

/// What every accepted connection is given.
struct Door<F, H> {
    settings: F,
    handler: H,
    gate: Arc<Gate>,
    clock: Clock,
    lifecycle: Rc<Lifecycle>,
}

impl<F: Fn() -> Option<Arc<Settings>>, H: Handler> Door<F, H> {
    async fn accept_while_running(&self, listener: &TcpListener, phase: &mut watch::Receiver<Phase>) {
        let (mut batch, mut pause) = (0, PAUSE.0);
        while *phase.borrow_and_update() == Phase::Running {
            let accepted = tokio::select! {
                biased;
                changed = phase.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    pause = PAUSE.0;
                    if !self.admit(stream, address) {
                        return;
                    }
                }
                // The client left between its handshake and our accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.gate.counters().refused.add("descriptors");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = phase.changed() => {}
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            batch += 1;
            if batch % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Starts one connection, or closes it at once where a limit says so. False when the listener has no settings left.
    fn admit(&self, stream: TcpStream, address: SocketAddr) -> bool {
        let Some(settings) = (self.settings)() else { return false };
        let counters = self.gate.counters();
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        match self.gate.enter() {
            Err(refusal) => counters.refused.add(refusal.reason()),
            Ok(guard) => {
                let arrival = Arrival {
                    address,
                    settings,
                    guard,
                    gate: Arc::clone(&self.gate),
                    handler: self.handler.clone(),
                    seat: self.lifecycle.seat(),
                    clock: self.clock.clone(),
                };
                tokio::task::spawn_local(arrival.run(stream));
            }
        }
        true
    }
}

/// An accepted connection of which nothing else is known yet.
struct Arrival<H> {
    address: SocketAddr,
    settings: Arc<Settings>,
    guard: ConnectionGuard,
    gate: Arc<Gate>,
    handler: H,
    seat: Seat,
    clock: Clock,
}

/// A connection past its greeting.
struct Greeted {
    client: SocketAddr,
    local: SocketAddr,
    stream: Stream,
}

enum Stream {
    Plain(TcpStream, BytesMut),
    Tls(Box<TlsStream<ReadAhead>>, TlsPeer),
}

impl<H: Handler> Arrival<H> {
    async fn run(mut self, stream: TcpStream) {
        if !self.is_proxied() && !self.claim(self.address) {
            return;
        }
        // Boxed, so that a long connection does not carry the room its handshake took.
        let greeting = Box::pin(tokio::time::timeout(self.settings.timeouts.handshake, self.greet(stream)));
        let greeted = tokio::select! {
            biased;
            greeted = greeting => greeted.unwrap_or(Err("handshake_timeout")),
            () = closing(&self.seat) => return,
        };
        let greeted = match greeted {
            Ok(greeted) => greeted,
            Err(reason) => return self.gate.counters().handshake_failures.add(reason),
        };
        if self.is_proxied() && !self.claim(greeted.client) {
            return;
        }
        // Boxed by what is spoken over what, so that no connection carries the room another kind takes.
        match greeted.stream {
            Stream::Tls(stream, tls) => {
                let negotiated = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let (connection, _guard) = self.into_connection(greeted.client, greeted.local, Some(tls));
                Box::pin(speak(negotiated, *stream, BytesMut::new(), connection)).await;
            }
            Stream::Plain(mut stream, mut read) => {
                let prior_knowledge = self.settings.h2 && self.sniff(&mut stream, &mut read).await;
                let (connection, _guard) = self.into_connection(greeted.client, greeted.local, None);
                Box::pin(speak(prior_knowledge, stream, read, connection)).await;
            }
        }
    }

    /// Whether the source is trusted to send a PROXY header, and so must.
    fn is_proxied(&self) -> bool {
        self.settings.proxy_protocol.as_ref().is_some_and(|trusted| contains(trusted, self.address.ip()))
    }

    /// Counts the connection to its client; false when that is one too many.
    fn claim(&mut self, client: SocketAddr) -> bool {
        match self.guard.claim(client.ip(), self.settings.limits.connections_per_client) {
            Ok(()) => true,
            Err(refusal) => {
                self.gate.counters().refused.add(refusal.reason());
                false
            }
        }
    }

    /// PROXY protocol and TLS. The error is the reason of the failure.
    async fn greet(&self, mut stream: TcpStream) -> Result<Greeted, &'static str> {
        let mut read = BytesMut::new();
        let (mut client, mut local) = (self.address, stream.local_addr().or(Err("socket_gone"))?);
        if self.is_proxied()
            && let Some(addresses) = proxy_protocol::read(&mut stream, &mut read).await?
        {
            (client, local) = addresses;
        }
        let stream = match &self.settings.tls {
            None => Stream::Plain(stream, read),
            Some(tls) => {
                let acceptor = TlsAcceptor::from(tls.config());
                let stream = acceptor.accept(ReadAhead::new(stream, read)).await.map_err(|error| reason(&error))?;
                let peer = tls.peer(stream.get_ref().1);
                Stream::Tls(Box::new(stream), peer)
            }
        };
        Ok(Greeted { client, local, stream })
    }

    /// Whether the client begins with the HTTP/2 preface. Reads as long as it could be, within `timeouts.idle`; what it
    /// cannot tell (silence, the end, a drain) is for the HTTP/1 driver to find again.
    async fn sniff(&self, stream: &mut TcpStream, read: &mut BytesMut) -> bool {
        let undecided = |read: &BytesMut| read.len() < PREFACE.len() && PREFACE.starts_with(read);
        let reading = async {
            while undecided(read) && stream.readable().await.is_ok() {
                if read.capacity() == 0 {
                    *read = borrow_buffer();
                }
                if !matches!(stream.read_buf(read).await, Ok(1..)) {
                    break;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(self.settings.timeouts.idle, reading) => {}
            () = draining(&self.seat) => {}
        }
        read.starts_with(PREFACE)
    }

    fn into_connection(
        self,
        client: SocketAddr,
        local: SocketAddr,
        tls: Option<TlsPeer>,
    ) -> (Connection<H>, ConnectionGuard) {
        let peer = Peer {
            listener: Arc::clone(&self.settings.name),
            client,
            local,
            trusted: contains(&self.settings.trusted_proxies, client.ip()),
            tls,
        };
        let connection = Connection {
            peer: Rc::new(peer),
            settings: self.settings,
            handler: self.handler,
            seat: self.seat,
            clock: self.clock,
            gate: self.gate,
        };
        (connection, self.guard)
    }
}

/// Drives HTTP/2 where it was agreed on, else HTTP/1 where the listener speaks it.
async fn speak<S: Transport, H: Handler>(h2: bool, stream: S, read: BytesMut, connection: Connection<H>) {
    if h2 {
        Box::pin(http2::serve(stream, read, connection)).await;
    } else if connection.settings.http1 {
        http1::serve(stream, read, connection).await;
    } else {
        connection.counters().handshake_failures.add("protocol_not_spoken");
    }
}

async fn closing(seat: &Seat) {
    std::future::poll_fn(|cx| if seat.poll_phase(cx) == Phase::Closing { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

async fn draining(seat: &Seat) {
    std::future::poll_fn(|cx| if seat.poll_phase(cx) == Phase::Running { Poll::Pending } else { Poll::Ready(()) })
        .await;
}

/// The stable name of a failed TLS handshake.
fn reason(error: &io::Error) -> &'static str {
    use rustls::Error as E;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<E>()) else { return "tls_closed" };
    match error {
        E::InvalidMessage(_) => "tls_malformed",
        E::NoApplicationProtocol => "tls_no_common_protocol",
        E::NoCertificatesPresented => "tls_client_certificate_missing",
        E::InvalidCertificate(_) => "tls_client_certificate_invalid",
        E::PeerIncompatible(_) => "tls_incompatible",
        E::AlertReceived(_) => "tls_refused_by_client",
        E::General(_) => "tls_unknown_server_name",
        _ => "tls_failed",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::listener::testing::{Scripted, read_to_end, run_in_real_time, settings};
    use crate::listener::tls::{CertificateSpec, ServerTls, TicketKeys, TlsSpec, self_signed};

    /// A listener on a free port and all that moves it.
    struct Listening {
        address: SocketAddr,
        gate: Arc<Gate>,
        phase: watch::Sender<Phase>,
        settings: Rc<RefCell<Option<Arc<Settings>>>>,
        served: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Listening {
        fn start(settings: Settings) -> Self {
            let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
            let address = socket.local_addr().expect("bound");
            let (phase, watched) = watch::channel(Phase::Running);
            let gate = Gate::new(3);
            let settings = Rc::new(RefCell::new(Some(Arc::new(settings))));
            let current = Rc::clone(&settings);
            let current = move || current.borrow().clone();
            let serving = serve(socket, current, Scripted::default(), Arc::clone(&gate), watched, Clock::System);
            Self { address, gate, phase, settings, served: tokio::task::spawn_local(serving) }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("the listener accepts")
        }

        /// Sends `input` and returns all that comes back.
        async fn converse(&self, input: &[u8]) -> String {
            let mut stream = self.connect().await;
            stream.write_all(input).await.expect("sent");
            read_to_end(&mut stream).await
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[test]
    fn a_trusted_source_must_send_a_proxy_header_and_others_cannot() {
        run_in_real_time(async {
            let header = |rest: &[u8]| [b"PROXY TCP4 10.9.8.7 10.0.0.2 8080 443\r\n", rest].concat();
            let trusting = |network: &str| {
                let trusted = Some(vec![network.parse().expect("a network")]);
                Listening::start(Settings { proxy_protocol: trusted, ..settings() })
            };
            let listening = trusting("127.0.0.0/8");
            assert!(listening.converse(&header(GET)).await.ends_with("GET a / "));
            assert_eq!(listening.converse(GET).await, "");
            assert_eq!(listening.gate.counters().handshake_failures.read()["proxy_header_invalid"], 1);
            let listening = trusting("10.0.0.0/8");
            assert!(listening.converse(GET).await.ends_with("GET a / "));
            assert!(listening.converse(&header(GET)).await.starts_with("HTTP/1.1 400 "));
        });
    }

    #[test]
    fn connections_over_a_limit_are_closed_at_once() {
        run_in_real_time(async {
            let mut limited = settings();
            limited.limits.connections_per_client = 2;
            let listening = Listening::start(limited.clone());
            let mut kept = Vec::new();
            for _ in 0..2 {
                let mut stream = listening.connect().await;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
                tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("an answer");
                kept.push(stream);
            }
            assert_eq!(listening.converse(GET).await, "");
            listening.gate.set_limit(2);
            assert_eq!(listening.converse(GET).await, "");
            let refused = listening.gate.counters().refused.read();
            assert_eq!((refused["connections_per_client"], refused["max_connections"]), (1, 1));
            assert_eq!(listening.gate.counters().accepted.load(Ordering::Relaxed), 4);
        });
    }

    #[test]
    fn draining_finishes_what_has_begun_and_then_returns() {
        run_in_real_time(async {
            let listening = Listening::start(settings());
            let mut idle = listening.connect().await;
            idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
            tokio::io::AsyncReadExt::read_u8(&mut idle).await.expect("an answer");
            let mut upload = listening.connect().await;
            upload
                .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
                .await
                .expect("sent");
            tokio::io::AsyncReadExt::read_u8(&mut upload).await.expect("100");
            listening.phase.send(Phase::Draining).expect("heard");
            assert!(read_to_end(&mut idle).await.ends_with("GET a / "));
            assert!(TcpStream::connect(listening.address).await.is_err() || listening.served.is_finished());
            upload.write_all(b"abc").await.expect("sent");
            assert!(read_to_end(&mut upload).await.ends_with("POST a / abc"));
            listening.served.await.expect("not cancelled").expect("in order");
            assert_eq!(listening.gate.active(), 0);
        });
    }

    #[test]
    fn closing_waits_for_nobody_and_a_listener_without_settings_is_gone() {
        run_in_real_time(async {
            let listening = Listening::start(settings());
            let mut stuck = listening.connect().await;
            stuck.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
            while listening.gate.active() == 0 {
                tokio::task::yield_now().await;
            }
            listening.phase.send(Phase::Closing).expect("heard");
            listening.served.await.expect("not cancelled").expect("in order");
            assert_eq!(read_to_end(&mut stuck).await, "");

            let listening = Listening::start(settings());
            *listening.settings.borrow_mut() = None;
            assert_eq!(listening.converse(GET).await, "");
            listening.served.await.expect("not cancelled").expect("in order");
        });
    }

    #[test]
    fn plain_http2_begins_with_its_preface_and_tls_agrees_by_alpn() {
        run_in_real_time(async {
            let listening = Listening::start(settings());
            let (mut requests, connection) =
                h2::client::handshake(listening.connect().await).await.expect("a handshake");
            tokio::task::spawn_local(connection);
            let request = http::Request::get("http://a/").body(()).expect("a request");
            let (answer, _) = requests.send_request(request, true).expect("sent");
            assert_eq!(answer.await.expect("an answer").status(), 200);

            let now = Clock::System.now();
            let (cert, key) = self_signed(&["a".to_owned()], now).expect("a certificate");
            let pair = CertificateSpec { cert_pem: cert.into(), key_pem: key.into(), label: "a".to_owned() };
            let spec = TlsSpec {
                certificates: vec![pair.clone()],
                h2: true,
                http1: true,
                tls13_only: false,
                strict_sni: false,
                client_auth: None,
            };
            let tickets = TicketKeys::generate(now).expect("randomness");
            let tls = ServerTls::build(&spec, &tickets, &Clock::System).expect("no faults");
            let trusted = Some(vec!["127.0.0.1/32".parse().expect("a network")]);
            let tls = Settings { tls: Some(Arc::new(tls)), proxy_protocol: trusted, ..settings() };
            let listening = Listening::start(tls);
            for (offered, expected) in [(&b"http/1.1"[..], "GET a / "), (b"h2", "")] {
                let mut stream = listening.connect().await;
                stream.write_all(b"PROXY UNKNOWN\r\n").await.expect("sent");
                let mut stream = trusting(&pair, offered)
                    .connect("a".try_into().expect("a name"), stream)
                    .await
                    .expect("a handshake");
                if expected.is_empty() {
                    let (mut requests, connection) = h2::client::handshake(stream).await.expect("a handshake");
                    tokio::task::spawn_local(connection);
                    let request = http::Request::get("https://a/large").body(()).expect("a request");
                    let (answer, _) = requests.send_request(request, true).expect("sent");
                    assert_eq!(answer.await.expect("an answer").status(), 200);
                } else {
                    stream.write_all(GET).await.expect("sent");
                    assert!(read_to_end(&mut stream).await.ends_with(expected));
                }
            }
            assert_eq!(listening.converse(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n").await.get(..1), Some("\u{15}"));
            assert_eq!(listening.gate.counters().handshake_failures.read()["tls_malformed"], 1);
        });
    }

    /// A client that trusts one certificate and offers one protocol.
    fn trusting(pair: &CertificateSpec, offered: &[u8]) -> tokio_rustls::TlsConnector {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pair.cert_pem).expect("PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![offered.to_vec()];
        Arc::new(config).into()
    }
}
