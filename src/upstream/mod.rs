//! Sockets out: the endpoints of a pool, the HTTP clients that speak to them, and the probes that watch them.
//!
//! Lives of things, longest first:
//!
//! - an [`Endpoint`] is live shared state (in-flight count, health, counters). It survives every reload that keeps its
//!   pool's name and its address, so that no count is lost and no verdict forgotten;
//! - a [`Pool`] is one generation's view of it: parameters, TLS identity, and the endpoints in file order. Immutable;
//! - [`Connections`] belongs to one worker and is never shared: idle keep-alive connections and the state of picks;
//! - a [`Slot`] is one attempt's right to use an endpoint. It is taken *before* connecting and given back when the last
//!   byte of the answer is in, or when whoever held it lets go. Nothing else counts in-flight.
//!
//! The HTTP/1.1 client is our own (`http1`), as the server side is: it is polled inside the exchange's own task, so that
//! a request costs no spawn and no hop between tasks, it refuses what could be read in two ways, and its buffers are
//! lent by the worker, so that an idle connection holds none. HTTP/2 (`http2`) drives the `h2` crate, with one task for
//! each connection. Probes speak through the same code.
//!
//! Names are asked for beside the workers too ([`Discovery`]): an exchange never waits for DNS, unless it is the first.
//! What pools discover becomes a pool like any other, in a snapshot of its own.
//!
//! Retrying is not done here: [`Failure`] says what happened, whether anything was sent, and whether the request can be
//! sent again.

mod answer;
mod attempt;
mod client;
mod connect;
mod discovery;
mod endpoint;
mod farm;
mod fault;
mod http1;
mod http2;
mod idle;
mod link;
mod moment;
mod names;
mod numbers;
mod owed;
mod patience;
mod pool;
mod probe;
mod proxy_protocol;
mod resolver;
mod room;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use client::{Answer, Connections, Failure, OutRequest, Timings, Wanted};
pub use discovery::{Discovery, Findings, Report};
pub use endpoint::{Counters, Endpoint, InFlightGuard, ProbeRecord, Slot};
pub use farm::Farm;
pub use pool::{Pool, PoolId};
pub use probe::Probes;
pub use room::PoolCounters;
pub use tls::{ClientTls, TlsFault, TlsSpec};
