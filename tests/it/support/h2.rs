//! An HTTP/2 client: one connection, as many concurrent streams as a test likes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::PATIENCE;
use super::client::{Answer, HOST, Request};
use super::wire::Fields;

/// Bytes of unread answers on one connection; more than any test has.
const WINDOW: u32 = 16 * 1024 * 1024;

/// A client connection that speaks HTTP/2.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    scheme: &'static str,
}

impl Client {
    /// Without TLS, by prior knowledge.
    pub fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let tcp = runtime.block_on(TcpStream::connect(address)).unwrap();
        Self::handshake(runtime, tcp, "http")
    }

    /// Over TLS; `config` offers `h2` and the server takes it.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        let runtime = runtime();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let tls = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await.unwrap();
            timeout(PATIENCE, connector.connect(name, tcp)).await.expect("a handshake in time").unwrap()
        });
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "h2 was negotiated");
        Self::handshake(runtime, tls, "https")
    }

    fn handshake(
        runtime: Runtime,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
    ) -> Self {
        // Answers are read one after another: what waits unread must not use up the window of the one that is read.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(WINDOW);
        let (sender, connection) = runtime.block_on(builder.handshake(io)).unwrap();
        // It ends with the connection; what went wrong shows in the answers.
        runtime.spawn(async move { drop(connection.await) });
        Self { runtime, sender, scheme }
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(&Request::get(target))
    }

    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.ask_all(std::slice::from_ref(request)).remove(0)
    }

    /// All requests at once, each on its own stream; answers in the order of the requests.
    ///
    /// An answer that the server cut or refused is incomplete; its status is 0 when no head came.
    #[track_caller]
    pub fn ask_all(&mut self, requests: &[Request]) -> Vec<Answer> {
        let (sender, scheme) = (self.sender.clone(), self.scheme);
        let all = async move {
            let mut waiting = Vec::new();
            for request in requests {
                waiting.push(send(sender.clone(), scheme, request).await);
            }
            let mut answers = Vec::new();
            for stream in waiting {
                answers.push(match stream {
                    Some(stream) => receive(stream).await,
                    None => Answer::default(),
                });
            }
            answers
        };
        // The timer is made inside the runtime it belongs to.
        self.runtime.block_on(async { timeout(PATIENCE, all).await }).expect("answers in time")
    }
}

/// One stream on which both sides talk at once.
pub struct Both {
    runtime: Runtime,
    up: SendStream<Bytes>,
    down: RecvStream,
    heard: Vec<u8>,
    pub status: u16,
}

impl Both {
    /// POSTs to `target` and waits for the head of the answer, with nothing of the body said yet.
    pub fn open(address: SocketAddr, target: &str) -> Self {
        let request = http::Request::post(format!("http://{HOST}{target}")).header("te", "trailers");
        Self::begin(address, request.body(()).unwrap())
    }

    pub fn begin(address: SocketAddr, request: http::Request<()>) -> Self {
        let Client { runtime, sender, .. } = Client::connect(address);
        let opening = async {
            let (response, up) = sender.ready().await.unwrap().send_request(request, false).unwrap();
            let (head, down) = response.await.unwrap().into_parts();
            (up, down, head.status.as_u16())
        };
        let (up, down, status) =
            runtime.block_on(async { timeout(PATIENCE, opening).await }).expect("a head while nothing was said");
        Self { runtime, up, down, heard: Vec::new(), status }
    }

    pub fn say(&mut self, text: &str) {
        self.up.send_data(Bytes::copy_from_slice(text.as_bytes()), false).unwrap();
    }

    pub fn end(&mut self, trailers: &[(&'static str, &'static str)]) {
        let pairs = trailers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        self.up.send_trailers(HeaderMap::from_iter(pairs)).unwrap();
    }

    /// The next `length` bytes.
    #[track_caller]
    pub fn hear(&mut self, length: usize) -> String {
        let Self { runtime, down, heard, .. } = self;
        let hearing = async {
            while heard.len() < length {
                let piece = down.data().await.expect("more").unwrap();
                let _ = down.flow_control().release_capacity(piece.len());
                heard.extend_from_slice(&piece);
            }
        };
        runtime.block_on(async { timeout(PATIENCE, hearing).await }).expect("an answer in time");
        String::from_utf8(heard.drain(..length).collect()).unwrap()
    }

    /// What ends the answer.
    #[track_caller]
    pub fn trailers(&mut self) -> Fields {
        let Self { runtime, down, .. } = self;
        let ending = async {
            assert!(down.data().await.is_none(), "nothing more");
            down.trailers().await.unwrap()
        };
        let trailers = runtime.block_on(async { timeout(PATIENCE, ending).await }).expect("an end in time");
        trailers.as_ref().map(fields).unwrap_or_default()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn send(sender: SendRequest<Bytes>, scheme: &str, request: &Request) -> Option<ResponseFuture> {
    let mut sender = sender.ready().await.ok()?;
    let host = if request.host.is_empty() { HOST } else { &request.host };
    let uri = format!("{scheme}://{host}{}", request.target);
    let mut head = http::Request::builder().method(request.method.as_str()).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in &request.fields {
        head = head.header(name, value);
    }
    let bodiless = request.body.is_empty();
    let (response, mut body) = sender.send_request(head.body(()).unwrap(), bodiless).ok()?;
    if !bodiless {
        // An early answer may have closed the stream: then the rest of the body has nobody to go to.
        let _ = body.send_data(Bytes::copy_from_slice(&request.body), true);
    }
    Some(response)
}

async fn receive(mut stream: ResponseFuture) -> Answer {
    let mut answer = Answer::default();
    while let Some(Ok(interim)) = poll_fn(|cx| stream.poll_informational(cx)).await {
        answer.interim.push((interim.status().as_u16(), fields(interim.headers())));
    }
    let Ok(response) = stream.await else { return answer };
    let (head, mut body) = response.into_parts();
    answer.status = head.status.as_u16();
    answer.fields = fields(&head.headers);
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else { return answer };
        let _ = body.flow_control().release_capacity(chunk.len());
        answer.body.extend_from_slice(&chunk);
    }
    let Ok(trailers) = body.trailers().await else { return answer };
    answer.trailers = trailers.as_ref().map(fields).unwrap_or_default();
    answer.complete = true;
    answer
}

/// The fields of a message of the `h2` crate.
pub fn fields(map: &HeaderMap) -> Fields {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Fields(map.iter().map(pair).collect())
}
