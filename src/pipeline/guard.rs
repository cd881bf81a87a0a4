//! Cheap refusals, before anything is looked up or sent.
//!
//! Access lists, rates, bans and body limits of a `[guard.NAME]` policy take their seat here; the checks that no policy
//! can switch off and that need the identity of this process already do.

use super::context::Exchange;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::snapshot::Route;

/// Refuses what must not go on.
///
/// # Errors
/// `Loop` when the request has been through this process before (RFC 9110 §7.6.3, RFC 8586).
pub(super) fn run(exchange: &Exchange, _route: &Route) -> Result<(), ProxyError> {
    if exchange.worker.shared.identity.is_loop(&exchange.head.headers) {
        return Err(ProxyError::new(ErrorKind::Loop, Stage::Guard));
    }
    Ok(())
}
