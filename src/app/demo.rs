//! The demo origins: a small harbour site served in-process, so that a first start has a farm to stand in front of.
//!
//! The files are part of the program. Static ones carry `ETag`, `Last-Modified` and `Cache-Control` and honour both
//! conditions; the rest is there to be watched through the proxy: `/api/time` and `/api/echo` (never stored), `/slow`
//! (1.5 s, then in pieces), `/flaky` (fails one time in four), `/healthz`. Every answer names its origin in `X-Origin`.
//! Nothing is compressed here: that is the proxy's work.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::clock::Clock;

/// Connections one origin holds; more wait in the listener's backlog.
const CONNECTIONS: usize = 512;

/// Bytes of a body that `/api/echo` repeats.
const ECHO_BYTES: usize = 64 * 1024;

/// What `/slow` does before its first byte.
const SLOW: Duration = Duration::from_millis(1500);

/// The pause between the pieces of `/slow`.
const PIECE: Duration = Duration::from_millis(300);

/// How long an origin out of descriptors rests before it accepts again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When the files were last changed.
const CHANGED: &str = "Mon, 02 Nov 2026 08:00:00 GMT";

const PAGE: &str = "public, max-age=60";
const ASSET: &str = "public, max-age=3600";
const NEVER: &str = "no-store";

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the site.
struct File {
    path: &'static str,
    kind: &'static str,
    cache: &'static str,
    bytes: &'static [u8],
}

macro_rules! site {
    ($($path:literal, $file:literal, $kind:expr, $cache:expr;)+) => {
        &[$(File {
            path: $path,
            kind: $kind,
            cache: $cache,
            bytes: include_bytes!(concat!("../../fixtures/site/", $file)),
        }),+]
    };
}

const SITE: &[File] = site! {
    "/", "index.html", HTML, PAGE;
    "/about", "about.html", HTML, PAGE;
    "/products/storm-lantern", "products/storm-lantern.html", HTML, PAGE;
    "/products/brass-barometer", "products/brass-barometer.html", HTML, PAGE;
    "/tide-tables.txt", "tide-tables.txt", TEXT, ASSET;
    "/assets/harbour.css", "assets/harbour.css", "text/css; charset=utf-8", ASSET;
    "/assets/tides.js", "assets/tides.js", SCRIPT, ASSET;
    "/assets/clock.js", "assets/clock.js", SCRIPT, ASSET;
    "/assets/lighthouse.svg", "assets/lighthouse.svg", "image/svg+xml", ASSET;
    "/assets/quay.png", "assets/quay.png", "image/png", ASSET;
    "/favicon.ico", "favicon.ico", "image/x-icon", ASSET;
};

const NOT_FOUND: &[u8] = include_bytes!("../../fixtures/site/404.html");

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One origin.
#[derive(Debug)]
struct Origin {
    /// `demo-1`, `demo-2` …
    name: String,
    /// Requests for `/flaky`, counted over all origins, so that exactly each fourth one fails.
    flaky: Arc<AtomicU64>,
}

/// Starts `count` origins on 127.0.0.1, at `first_port` and up (0 = any free ports), on the current runtime. They live
/// as long as the runtime.
///
/// # Errors
/// When one of the ports cannot be bound; then none of the origins serves.
pub async fn start(count: usize, first_port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut listeners = Vec::with_capacity(count);
    for offset in 0..u16::try_from(count).unwrap_or(u16::MAX) {
        let port = if first_port == 0 { 0 } else { first_port.saturating_add(offset) };
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?);
    }
    let flaky = Arc::default();
    let mut addresses = Vec::with_capacity(count);
    for (listener, number) in listeners.into_iter().zip(1..) {
        addresses.push(listener.local_addr()?);
        let origin = Origin { name: format!("demo-{number}"), flaky: Arc::clone(&flaky) };
        tokio::spawn(serve(listener, Arc::new(origin)));
    }
    Ok(addresses)
}

async fn serve(listener: TcpListener, origin: Arc<Origin>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let origin = Arc::clone(&origin);
                tokio::spawn(async move {
                    converse(stream, origin).await;
                    drop(seat);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, to its end.
async fn converse(stream: TcpStream, origin: Arc<Origin>) {
    let service = service_fn(move |request| {
        let origin = Arc::clone(&origin);
        async move { Ok::<_, Infallible>(origin.answer(request).await) }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "demo connection broke");
    }
}

impl Origin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = match request.uri().path() {
            "/api/echo" => self.echo(request).await,
            _ if ![Method::GET, Method::HEAD].contains(request.method()) => not_allowed(),
            "/healthz" => full(StatusCode::OK, TEXT, NEVER, "ok\n"),
            "/api/time" => self.time(),
            "/slow" => self.slow().await,
            "/flaky" => self.flaky(),
            path => match SITE.iter().find(|file| file.path == path) {
                Some(file) => file.answer(request.headers()),
                None => full(StatusCode::NOT_FOUND, HTML, PAGE, NOT_FOUND),
            },
        };
        if let Ok(name) = HeaderValue::from_str(&self.name) {
            response.headers_mut().insert(HeaderName::from_static("x-origin"), name);
        }
        response
    }

    fn time(&self) -> Response<Body> {
        let now = Clock::System.now();
        let text = httpdate::fmt_http_date(now.wall);
        let body = json!({ "origin": self.name, "unix": now.unix_seconds(), "date": text });
        full(StatusCode::OK, JSON, NEVER, body.to_string())
    }

    /// What of a request arrived here: for seeing what the proxy adds and removes.
    async fn echo(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, ECHO_BYTES).collect().await else {
            return full(StatusCode::PAYLOAD_TOO_LARGE, TEXT, NEVER, "more than 64 KiB to repeat\n");
        };
        let fields = head
            .headers
            .iter()
            .map(|(name, value)| [name.as_str(), &String::from_utf8_lossy(value.as_bytes())].map(str::to_owned));
        let body = json!({
            "origin": self.name,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "version": format!("{:?}", head.version),
            "fields": fields.collect::<Vec<_>>(),
            "body": String::from_utf8_lossy(&body.to_bytes()),
        });
        full(StatusCode::OK, JSON, NEVER, format!("{body:#}\n"))
    }

    async fn slow(&self) -> Response<Body> {
        tokio::time::sleep(SLOW).await;
        let head = format!("The harbour master of {} has thought about it.\n", self.name);
        let lines = ["The tide will turn.\n", "It usually does.\n", "That is all.\n"].map(str::to_owned);
        let pieces: Vec<String> = std::iter::once(head).chain(lines).collect();
        let stream = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async {
            let piece = pieces.next()?;
            tokio::time::sleep(PIECE).await;
            Some((Ok(Frame::data(Bytes::from(piece))), pieces))
        });
        answer(StatusCode::OK, TEXT, NEVER, StreamBody::new(stream).boxed_unsync())
    }

    fn flaky(&self) -> Response<Body> {
        let turn = self.flaky.fetch_add(1, Ordering::Relaxed);
        if turn % 4 == 3 {
            let mut response = full(StatusCode::SERVICE_UNAVAILABLE, TEXT, NEVER, "the pump has stopped again\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        full(StatusCode::OK, TEXT, NEVER, "the pump is running\n")
    }
}

impl File {
    /// The file, or 304 when the client has it already (RFC 9110 §13.2.2: the tag goes before the date).
    fn answer(&self, fields: &HeaderMap) -> Response<Body> {
        let tag = self.tag();
        let current = match (fields.get(IF_NONE_MATCH), fields.get(IF_MODIFIED_SINCE)) {
            (Some(tags), _) => names(tags, &tag),
            (None, Some(since)) => unchanged(since),
            (None, None) => false,
        };
        let mut response = if current {
            full(StatusCode::NOT_MODIFIED, self.kind, self.cache, "")
        } else {
            full(StatusCode::OK, self.kind, self.cache, self.bytes)
        };
        let headers = response.headers_mut();
        headers.insert(LAST_MODIFIED, HeaderValue::from_static(CHANGED));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(ETAG, tag);
        }
        response
    }

    /// A strong tag, the same at every origin.
    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// Whether `If-None-Match` names `tag`, compared weakly.
fn names(tags: &HeaderValue, tag: &str) -> bool {
    let listed =
        |tags: &str| tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag);
    tags.to_str().is_ok_and(listed)
}

fn unchanged(since: &HeaderValue) -> bool {
    let since = since.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    since.zip(httpdate::parse_http_date(CHANGED).ok()).is_some_and(|(since, changed)| since >= changed)
}

fn not_allowed() -> Response<Body> {
    let mut response = full(StatusCode::METHOD_NOT_ALLOWED, TEXT, NEVER, "only GET and HEAD here\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn full(status: StatusCode, kind: &'static str, cache: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    answer(status, kind, cache, Full::new(body.into()).boxed_unsync())
}

fn answer(status: StatusCode, kind: &'static str, cache: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper::client::conn::http1 as client;

    use super::*;

    /// Status, origin, tag and body of one GET.
    async fn get(
        address: SocketAddr,
        path: &str,
        condition: Option<(HeaderName, &str)>,
    ) -> (u16, String, String, Bytes) {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "demo");
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let field =
            |name| response.headers().get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned();
        let (origin, tag) = (field("x-origin"), field("etag"));
        let status = response.status().as_u16();
        (status, origin, tag, response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn the_same_site_at_every_origin() {
        let addresses = start(2, 0).await.unwrap();
        for file in SITE {
            let (status, first, tag, body) = get(addresses[0], file.path, None).await;
            assert_eq!((status, first.as_str(), &body[..]), (200, "demo-1", file.bytes), "{}", file.path);
            let (status, second, same, body) = get(addresses[1], file.path, Some((IF_NONE_MATCH, &tag))).await;
            assert_eq!((status, second.as_str(), same, body.len()), (304, "demo-2", tag, 0), "{}", file.path);
        }
        let since = |text| Some((IF_MODIFIED_SINCE, text));
        assert_eq!(get(addresses[0], "/", since(CHANGED)).await.0, 304);
        assert_eq!(get(addresses[0], "/", since("Sun, 01 Nov 2026 08:00:00 GMT")).await.0, 200);
        assert_eq!(get(addresses[0], "/nowhere", None).await.0, 404);
    }

    #[tokio::test]
    async fn each_fourth_flaky_request_fails_whoever_gets_it() {
        let addresses = start(3, 0).await.unwrap();
        let mut statuses = Vec::new();
        for address in addresses.iter().cycle().take(8) {
            statuses.push(get(*address, "/flaky", None).await.0);
        }
        assert_eq!(statuses, [200, 200, 200, 503, 200, 200, 200, 503]);
    }

    #[tokio::test]
    async fn the_interfaces_say_who_answers_and_what_arrived() {
        let addresses = start(2, 0).await.unwrap();
        let parse = |body: Bytes| serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        let time = parse(get(addresses[1], "/api/time", None).await.3);
        assert_eq!((&time["origin"], time["unix"].is_u64()), (&json!("demo-2"), true));
        let echo = parse(get(addresses[0], "/api/echo?a=b", None).await.3);
        assert_eq!([&echo["method"], &echo["target"]], ["GET", "/api/echo?a=b"]);
        assert_eq!(echo["fields"], json!([["host", "demo"]]));
    }

    /// A link that leads nowhere would make a poor first impression.
    #[test]
    fn every_link_leads_somewhere() {
        let dynamic = ["/api/time", "/api/echo", "/slow", "/flaky", "/healthz"];
        for page in SITE.iter().filter(|file| file.kind == HTML) {
            let text = std::str::from_utf8(page.bytes).unwrap();
            for attribute in ["href=\"", "src=\"", "data-source=\""] {
                for link in text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                    let known = SITE.iter().any(|file| file.path == link) || dynamic.contains(&link);
                    assert!(known || link.starts_with('#'), "{}: {link}", page.path);
                }
            }
        }
    }
}
