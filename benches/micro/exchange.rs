//! One exchange through the pipeline, from a request that has been read to the last byte of the body: without driver and
//! client connection, with the origin's connection where there is one.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::Body as _;
use tempfile::TempDir;
use tidegate::authority::Authority;
use tidegate::body::{Body, Interim, Peer, Request};
use tidegate::clock::Clock;
use tidegate::listener::tls::TicketKeys;
use tidegate::observe::{AccessLog, Metrics};
use tidegate::pipeline::{self, Shared, Worker, Workshop};
use tidegate::policy::fields::Identity;
use tidegate::snapshot::Current;
use tidegate::snapshot::build::{Parts, build};
use tidegate::snapshot::reload::Reader;
use tidegate::store::{Purger, Store};
use tidegate::upstream::Farm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

const SMALL: usize = 1024;
const LARGE: usize = 100 * 1024;

/// A worker, and an origin on the same thread.
struct World {
    runtime: Runtime,
    tasks: LocalSet,
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    _folder: TempDir,
}

impl World {
    fn new(length: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tasks = LocalSet::new();
        let origin = tasks.block_on(&runtime, async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = listener.local_addr().expect("bound");
            tokio::task::spawn_local(serve(listener, length));
            address
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, config(origin)).expect("room");
        let config = Reader::new(&file).read().config.unwrap_or_else(|faults| panic!("{faults}"));
        let (clock, store) = (Clock::System, Store::new(64 << 20));
        let parts = Parts {
            store: store.clone(),
            tickets: TicketKeys::generate(clock.now()).expect("keys"),
            farm: Arc::new(Farm::new(&[7; 32])),
            findings: Arc::default(),
            self_signed: Box::new(|_| Err(std::io::Error::other("no TLS here"))),
        };
        let snapshot = build(config, None, &parts, &clock).unwrap_or_else(|faults| panic!("{faults}"));
        let shared = Arc::new(Shared {
            current: Arc::new(Current::new(Arc::new(snapshot))),
            purger: Purger::new(store.clone(), runtime.handle().clone()),
            workshop: Workshop::open(store.clone(), clock.clone()).expect("a thread"),
            store,
            access_log: AccessLog::off(),
            identity: Identity::new(7),
            clock,
        });
        let worker = Rc::new(Worker::new(shared, Metrics::new().worker(), 7));
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peer =
            Peer { listener: "http".into(), client: address(50_000), local: address(80), trusted: false, tls: None };
        Self { runtime, tasks, worker, peer: Rc::new(peer), _folder: folder }
    }

    /// One exchange, to the end of its body; returns the bytes of that.
    fn exchange(&self, request: Request) -> usize {
        self.tasks.block_on(&self.runtime, async {
            let (mut response, record) =
                pipeline::handle(Rc::clone(&self.worker), Rc::clone(&self.peer), request).await;
            assert_eq!(response.status, StatusCode::OK);
            let mut bytes = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut response.body).poll_frame(cx)).await {
                bytes += frame.expect("the origin is well").data_ref().map_or(0, Bytes::len);
            }
            drop(record);
            bytes
        })
    }
}

fn config(origin: SocketAddr) -> String {
    format!(
        "[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n\
         [[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{origin}\" }}]\n\
         [[route]]\nname = \"cached\"\npath = \"/cached/\"\npool = \"web\"\ncache = \"pages\"\n\
         [[route]]\nname = \"passed\"\npool = \"web\"\n\
         [cache.pages]\n"
    )
}

fn request(target: &'static str) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("shop.example"));
    headers.insert(USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd"));
    Request {
        method: Method::GET,
        scheme: http::uri::Scheme::HTTP,
        authority: Authority::parse(b"shop.example").expect("a host"),
        target: Bytes::from_static(target.as_bytes()),
        version: Version::HTTP_11,
        headers,
        body: Body::Empty,
        interim: Interim::default(),
        upgrade: None,
    }
}

/// Answers every request on every connection the same way.
async fn serve(listener: TcpListener, length: usize) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nCache-Control: max-age=3600\r\nETag: \"1\"\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let answer: Rc<[u8]> = [head.into_bytes(), vec![7; length]].concat().into();
    while let Ok((socket, _)) = listener.accept().await {
        tokio::task::spawn_local(answer_all(socket, Rc::clone(&answer)));
    }
}

async fn answer_all(mut socket: TcpStream, answer: Rc<[u8]>) {
    let mut read = Vec::new();
    while socket.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

#[divan::bench(args = [SMALL, LARGE])]
fn cached(bencher: Bencher<'_, '_>, length: usize) {
    let world = World::new(length);
    assert_eq!(world.exchange(request("/cached/a")), length);
    bencher.with_inputs(|| request("/cached/a")).bench_local_values(|request| world.exchange(request));
}

#[divan::bench(args = [SMALL, LARGE])]
fn passed(bencher: Bencher<'_, '_>, length: usize) {
    let world = World::new(length);
    bencher.with_inputs(|| request("/passed/a")).bench_local_values(|request| world.exchange(request));
}
