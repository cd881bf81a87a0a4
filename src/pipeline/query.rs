//! The content of a QUERY, gathered for its key (RFC 10008 §2.7): bounded by the policy's `query_body`, and under the client's
//! own timeouts as it arrives.

use super::context::Exchange;
use super::question::Asked;
use crate::body::{Body, Gathered};
use crate::error::ProxyError;
use crate::policy::cache::CacheParams;
use crate::policy::cache::bypass::{self, Bypass, Participation};
use crate::policy::cache::query::ContentDigest;

/// Reads the content of a QUERY that `query::takes_part`, and leaves it at hand in the exchange. What is longer than its
/// bound is left to stream, with the part that was read put in front; of a request that the cache passes by for another
/// reason nothing is read. Trailers behind gathered content are left out (RFC 9110 §6.5.1).
///
/// # Errors
/// The client's own failures while it sends. Within: why the request passes the cache by.
pub(super) async fn gather(
    exchange: &mut Exchange,
    params: &CacheParams,
) -> Result<Result<ContentDigest, Bypass>, ProxyError> {
    let directives = params.directives(&exchange.head.headers);
    if let Participation::Bypass(reason) = bypass::decide(&Asked::of(exchange).facts(), &directives, params) {
        return Ok(Err(reason));
    }
    let bound = params.query_body.unwrap_or_default();
    let announced = exchange.body.exact_len();
    if announced.is_some_and(|length| length > bound) {
        return Ok(Err(Bypass::QueryBodyTooLarge));
    }
    match std::mem::take(&mut exchange.body).gather(bound).await? {
        Gathered::Whole(content) => {
            let digest = ContentDigest::of(&content);
            exchange.body = Body::full(content);
            Ok(Ok(digest))
        }
        Gathered::Longer(body) => {
            exchange.body = body;
            Ok(Err(Bypass::QueryBodyTooLarge))
        }
    }
}
