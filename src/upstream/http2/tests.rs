//! The connections to an origin, against the server of the `h2` crate over loopback.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::{self, Connection};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::policy::pool::{OriginProtocol, PoolParams};
use crate::upstream::tests::{drain, get, pool, send};
use crate::upstream::{Connections, Pool};

/// Long enough for anything that happens at all.
const BOUND: Duration = Duration::from_secs(5);

type Served = Connection<TcpStream, Bytes>;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn http2_pool(address: SocketAddr, edit: impl FnOnce(&mut PoolParams)) -> Arc<Pool> {
    pool(&[address], |params| {
        params.protocol = OriginProtocol::Http2;
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
        worker.retain(|_| false);
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
