//! One connection of a worker to an endpoint, busy or idle, with everything that is made once per connection.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::http1::Connection;
use super::names::Lead;
use super::patience::Patience;
use super::stream::Stream;
use crate::policy::pool::PoolTimeouts;

/// A connection to an endpoint and the patience with it.
pub(super) struct Link {
    pub(super) http: Connection,
    pub(super) patience: Patience,
    /// Where it leads, of an endpoint whose address is a name.
    pub(super) lead: Option<Lead>,
}

impl Link {
    /// HTTP/1.1 over a fresh stream, whose first exchange has these `bounds`.
    pub(super) fn new(stream: Stream, lead: Option<Lead>, endpoint: Arc<Endpoint>, bounds: &PoolTimeouts) -> Self {
        Self { http: Connection::new(stream, Some(endpoint)), patience: Patience::new(bounds), lead }
    }
}
