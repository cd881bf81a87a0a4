//! The admin socket and the connections on it: bounded in number, time and size.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::View;
use super::routes::router;
use crate::policy::pool::Address;

/// Connections served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 64;
/// From a connection's first byte to the end of a request head, and the longest idle time between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest life of a connection: longer than any answer takes, and an end for those who do not read theirs.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of a request head (hyper's least is 8192).
const HEAD_BYTES: usize = 16 * 1024;
/// Wait after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A bound admin socket. A unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Listener,
    address: Address,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] SocketFile),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; there is nothing to do about it either way.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Socket {
    /// The bound address, with the port the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Binds the admin socket. To be called inside the admin runtime.
///
/// # Errors
/// Those of binding. A unix socket that nobody answers on is replaced; one that somebody answers on, and any other kind
/// of file, is `AddrInUse`.
pub async fn bind(address: &Address) -> io::Result<Socket> {
    let listener = match address {
        Address::Ip(address) => Listener::Tcp(TcpListener::bind(address).await?),
        Address::Name(name, port) => Listener::Tcp(TcpListener::bind((name.as_str(), *port)).await?),
        Address::Unix(path) => bind_unix(path)?,
    };
    let address = match &listener {
        Listener::Tcp(tcp) => Address::Ip(tcp.local_addr()?),
        Listener::Unix(..) => address.clone(),
    };
    Ok(Socket { listener, address })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    if let Ok(present) = std::fs::symlink_metadata(path) {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if !present.file_type().is_socket() || !StdUnixStream::connect(path).is_err_and(|error| refused(&error)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(listener, SocketFile(path.into())))
}

/// Serves until dropped. Connections in progress end with the runtime.
pub async fn serve(socket: Socket, view: Arc<dyn View>) {
    let router = router(view);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let accepted = match &socket.listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| spawn(stream, router.clone(), slot)),
            Listener::Unix(unix, _) => unix.accept().await.map(|(stream, _)| spawn(stream, router.clone(), slot)),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "admin: accept failed");
            tokio::time::sleep(ACCEPT_BACK_OFF).await;
        }
    }
}

fn spawn(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, slot: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        // A client that broke off or timed out is its own business.
        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        drop(slot);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::States;
    use crate::admin::{Explained, Fault, Status};
    use crate::config::routing::Asked;
    use crate::observe::status::tests::sample;
    use crate::policy::balance::AdminState;
    use crate::policy::cache::purge::Target;
    use crate::store::Purged;
    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    struct Stub;

    impl View for Stub {
        fn status(&self) -> Status {
            sample()
        }

        fn metrics(&self) -> String {
            String::new()
        }

        fn ready(&self) -> Result<(), &'static str> {
            Ok(())
        }

        fn token(&self) -> Option<Arc<str>> {
            None
        }

        fn explain(&self, _asked: &Asked) -> Result<Explained, String> {
            Err("nothing".into())
        }

        fn purge(&self, target: Target, soft: bool, _dry: bool) -> BoxFuture<'static, Purged> {
            let told = format!("{target} {soft}");
            Box::pin(async move { Purged { responses: 3, sample: vec![told.into()], ..Purged::default() } })
        }

        fn clear_quarantine(&self) -> usize {
            0
        }

        fn set_state(&self, _: &str, _: &str, _: Option<AdminState>) -> Result<States, &'static str> {
            Err("no_such_pool")
        }

        fn reload(&self) -> BoxFuture<'static, Result<u64, Vec<Fault>>> {
            Box::pin(async { Ok(1) })
        }
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_exclusive_and_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let address = Address::Unix(path.clone());
        // Left behind by a process that died.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let socket = bind(&address).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let serving = tokio::spawn(serve(socket, Arc::new(Stub)));
        let answer = ask(UnixStream::connect(&path).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "the file goes with the socket");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "x").unwrap();
        assert!(bind(&Address::Unix(path.clone())).await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "x");
    }

    #[tokio::test]
    async fn a_tcp_socket_says_which_port_it_got() {
        let socket = bind(&Address::Ip("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let Address::Ip(address) = socket.address().clone() else { panic!("bound by IP") };
        assert_ne!(address.port(), 0);
        let serving = tokio::spawn(serve(socket, Arc::new(Stub)));
        let answer = ask(tokio::net::TcpStream::connect(address).await.unwrap()).await;
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        serving.abort();
    }
}
