//! The admin listener: health, metrics, status and reload over HTTP/1, on a runtime of its own.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while exchanges are served, else 503 with the reason |
//! | `GET /metrics` | Prometheus text |
//! | `GET /status` | JSON; `?format=text` for people |
//! | `GET /explain?url=URL` | JSON: what would become of a request; `&format=text` for people |
//! | `POST /endpoint` | JSON: the operator's word about an endpoint; 200 with the state that counts |
//! | `POST /purge` | JSON: what is to go; 200 with how much went |
//! | `POST /quarantine/clear` | lets optimisers that failed try again; 200 with how many pairs of optimiser and URL |
//! | `POST /reload` | 200 with the generation, or 422 with every fault |
//!
//! The address is TCP or a unix socket (mode 0600). With a token configured everything but the two health checks needs
//! `Authorization: Bearer TOKEN`; the configuration refuses anything but loopback without one. A request that a browser
//! sent from another site (it has an `Origin`) may not change anything.

mod endpoint;
mod explain;
mod listen;
mod purge;
mod routes;
mod text;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::routing::Asked;
use crate::policy::balance::AdminState;
use crate::policy::cache::purge::Target;
use crate::store::Purged;

pub use crate::observe::status::{self, Fault, Status};
pub use explain::Explained;
pub use listen::{Socket, bind, serve};
pub use routes::router;

/// The states of an endpoint after an operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States {
    /// The one that counts.
    pub effective: AdminState,
    /// The file's.
    pub configured: AdminState,
    /// Attempts in flight.
    pub in_flight: u32,
}

/// What the admin listener shows and triggers; `app` implements it.
pub trait View: Send + Sync + 'static {
    /// The state of the process now. Called on the admin runtime; may take short locks.
    fn status(&self) -> Status;

    /// The Prometheus exposition.
    fn metrics(&self) -> String;

    /// Whether exchanges are served; otherwise why not, as a stable token (`starting`, `draining`).
    ///
    /// # Errors
    /// The token.
    fn ready(&self) -> Result<(), &'static str>;

    /// The token in force (`admin.token_file`), looked up for each request so that a reload may change it.
    fn token(&self) -> Option<Arc<str>>;

    /// What would become of a request; nothing is counted, fetched or moved.
    ///
    /// # Errors
    /// Words that say why no route is asked.
    fn explain(&self, asked: &Asked) -> Result<Explained, String>;

    /// Purges everywhere, or with `dry` counts what would go. It goes on when the future is dropped.
    fn purge(&self, target: Target, soft: bool, dry: bool) -> BoxFuture<'static, Purged>;

    /// Lets every optimiser out of quarantine; how many pairs of optimiser and URL that were.
    fn clear_quarantine(&self) -> usize;

    /// Sets the operator's word about an endpoint, or takes it back.
    ///
    /// # Errors
    /// `no_such_pool` or `no_such_endpoint`.
    fn set_state(&self, pool: &str, endpoint: &str, word: Option<AdminState>) -> Result<States, &'static str>;

    /// Reads, validates and publishes the configuration now: the generation in force afterwards, or every fault. The
    /// reload itself goes on when the future is dropped.
    fn reload(&self) -> BoxFuture<'static, Result<u64, Vec<Fault>>>;
}
