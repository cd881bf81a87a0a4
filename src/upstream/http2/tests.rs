//! The connections to an origin, against the server of the `h2` crate over loopback.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::RecvStream;
use h2::server::{self, Connection, SendResponse};
use http::{Method, Request, Response};
use http_body::Frame;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

use crate::body::Body;
use crate::policy::balance::Balance;
use crate::policy::pool::{OriginProtocol, PoolParams};
use crate::upstream::tests::{SLOW, drain, get, pool, request, send, slow_upload, stalling_upload};
use crate::upstream::{Answer, Connections, Failure, OutRequest, Pool};

/// Long enough for anything that happens at all.
const BOUND: Duration = Duration::from_secs(20);
/// The bounds of an exchange, shorter than that.
const PATIENCE: Duration = Duration::from_secs(5);

type Served = Connection<TcpStream, Bytes>;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn http2_pool(address: SocketAddr, edit: impl FnOnce(&mut PoolParams)) -> Arc<Pool> {
    pool(&[address], |params| {
        params.protocol = OriginProtocol::Http2;
        (params.timeouts.connect, params.timeouts.first_byte, params.timeouts.idle) = (PATIENCE, PATIENCE, PATIENCE);
        edit(params);
    })
}

/// The next connection, its preface read.
async fn accept(listener: &TcpListener) -> Served {
    let (socket, _) = listener.accept().await.unwrap();
    server::handshake(socket).await.unwrap()
}

/// Answers the next request of a connection with a head alone.
async fn answer(connection: &mut Served) {
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    respond.send_response(http::Response::new(()), true).unwrap();
}

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Drives a connection; its requests come as they arrive.
fn serve(mut connection: Served) -> UnboundedReceiver<Asked> {
    let (to, from) = unbounded_channel();
    spawn_local(async move {
        while let Some(Ok(asked)) = connection.accept().await {
            if to.send(asked).is_err() {
                return;
            }
        }
    });
    from
}

/// Sends a request from a task of its own.
fn ask(worker: &Rc<Connections>, pool: &Arc<Pool>, request: OutRequest) -> JoinHandle<Result<Answer, Failure>> {
    let (worker, pool) = (Rc::clone(worker), Arc::clone(pool));
    spawn_local(async move { send(&worker, &pool, request).await })
}

/// Answers a request with a head alone.
fn answer_with_head(asked: &mut Asked) {
    asked.1.send_response(Response::new(()), true).unwrap();
}

/// Runs a test whose connections have tasks.
async fn run(test: impl Future<Output = ()>) {
    tokio::time::timeout(BOUND, LocalSet::new().run_until(test)).await.expect("it ends in time");
}

#[tokio::test]
async fn a_connection_that_was_being_opened_when_its_endpoint_left_is_closed() {
    run(async {
        let (listener, address) = listen().await;
        let (worker, pool) = (Rc::new(Connections::new()), http2_pool(address, |_| ()));
        let mut sending = pin!(send(&worker, &pool, get()));
        assert!(sending.as_mut().now_or_never().is_none(), "it connects");
        worker.follow(&[]);
        let origin = async {
            let mut connection = accept(&listener).await;
            answer(&mut connection).await;
            assert!(connection.accept().await.is_none(), "it is closed behind its only exchange");
        };
        let client = async {
            let answer = sending.await.expect("an answer");
            assert_eq!(drain(answer.response.body).await, (0, None, None));
        };
        tokio::join!(origin, client);
        assert_eq!(worker.idle(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_connection_too_many_that_fails_fails_nobody() {
    run(async {
        let (listener, address) = listen().await;
        let (worker, pool) = (Rc::new(Connections::new()), http2_pool(address, |params| params.keep_alive.idle = 4));
        let first = ask(&worker, &pool, get());
        let (socket, _) = listener.accept().await.unwrap();
        let mut asked = serve(server::Builder::new().max_concurrent_streams(1).handshake(socket).await.unwrap());
        answer_with_head(&mut asked.recv().await.unwrap());
        first.await.unwrap().expect("an answer");
        // Nobody listens any more: the only stream there will ever be is taken.
        drop(listener);
        let held = ask(&worker, &pool, get());
        let mut first = asked.recv().await.unwrap();
        let waiting = [ask(&worker, &pool, get()), ask(&worker, &pool, get())];
        for _ in 0..200 {
            yield_now().await;
        }
        answer_with_head(&mut first);
        held.await.unwrap().expect("an answer");
        for waiting in waiting {
            answer_with_head(&mut asked.recv().await.unwrap());
            waiting.await.unwrap().expect("an answer, on the stream that became free");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_nobody_looks_after_leaves_the_window_to_others() {
    run(async {
        /// What a connection lets through at first (RFC 9113 §6.9.2).
        const WINDOW: usize = 65_535;
        /// Bytes of that frame: one is for the stream, one for the connection.
        const WINDOW_UPDATE: u64 = 13;
        let (listener, address) = listen().await;
        let (worker, pool) = (Rc::new(Connections::new()), http2_pool(address, |_| ()));
        let sending = ask(&worker, &pool, stalling_upload([Ok(Frame::data(Bytes::from(vec![b'x'; 2 * WINDOW + 2])))]));
        let mut asked = serve(accept(&listener).await);
        let (upload, mut respond) = asked.recv().await.unwrap();
        let mut upload = upload.into_body();
        let mut early = respond.send_response(Response::new(()), false).unwrap();
        early.send_data(Bytes::from_static(b"x"), false).unwrap();
        // The head is here, and the client takes nothing of the body.
        let answer = sending.await.unwrap().expect("a head");
        let mut read = 0;
        while read < WINDOW {
            read += upload.data().await.unwrap().unwrap().len();
        }
        let before = pool.endpoints[0].counters().bytes_in;
        upload.flow_control().release_capacity(WINDOW).unwrap();
        while pool.endpoints[0].counters().bytes_in < before + 2 * WINDOW_UPDATE {
            yield_now().await;
        }
        let other = ask(&worker, &pool, request(Method::POST, Body::full(Bytes::from_static(b"small"))));
        let (question, mut respond) = asked.recv().await.unwrap();
        let mut body = question.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "small");
        respond.send_response(Response::new(()), true).unwrap();
        other.await.unwrap().expect("an answer");
        drop((answer, early));
    })
    .await;
}

#[tokio::test]
async fn small_pieces_that_one_client_does_not_read_cost_the_others_nothing() {
    run(async {
        const PIECES: usize = 70_000;
        /// A frame of one byte, its head included.
        const FRAME: usize = 10;
        let (listener, address) = listen().await;
        let (worker, pool) = (Rc::new(Connections::new()), http2_pool(address, |_| ()));
        let unread = ask(&worker, &pool, get());
        let mut asked = serve(accept(&listener).await);
        let (_, mut respond) = asked.recv().await.unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        for piece in 1..=PIECES {
            stream.send_data(Bytes::from_static(b"x"), piece == PIECES).unwrap();
        }
        let unread = unread.await.unwrap().expect("a head");
        while pool.endpoints[0].counters().bytes_in < (PIECES * FRAME) as u64 {
            yield_now().await;
        }
        let other = ask(&worker, &pool, get());
        answer_with_head(&mut asked.recv().await.unwrap());
        assert!(other.await.unwrap().expect("an answer").reused);
        assert_eq!(drain(unread.response.body).await, (PIECES, None, None));
    })
    .await;
}

#[tokio::test]
async fn what_a_client_takes_to_send_is_not_the_origins_latency() {
    run(async {
        let (listener, address) = listen().await;
        let (worker, pool) =
            (Rc::new(Connections::new()), http2_pool(address, |params| params.balance = Balance::PeakEwma));
        let sending = ask(&worker, &pool, slow_upload());
        let mut asked = serve(accept(&listener).await);
        let (question, mut respond) = asked.recv().await.unwrap();
        let mut body = question.into_body();
        while let Some(piece) = body.data().await {
            piece.unwrap();
        }
        respond.send_response(Response::new(()), true).unwrap();
        sending.await.unwrap().expect("an answer");
        let known = Duration::from_micros(pool.endpoints[0].estimated_latency().into());
        assert!(known > Duration::ZERO && known < SLOW / 2, "{known:?}");
    })
    .await;
}
