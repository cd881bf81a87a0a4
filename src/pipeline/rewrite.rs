//! The operator's mandatory rules, applied in the stream to every answer of a route.

use http::Method;

use super::integrity;
use super::worker::Worker;
use crate::body::{Body, Filtered, Response};
use crate::error::Stage;
use crate::policy::mend;
use crate::policy::rewrite::{self, Document, RewriteFacts};
use crate::policy::validators::{Derivation, Rules};
use crate::snapshot::{Rewrite, Route};
use crate::transform::coding::{DECODED_MAX, Decoder};
use crate::transform::html::Failure;

/// A response after the rules.
pub(super) struct Rewritten {
    /// With its body in the rewriter, and its fields mended; as it was where no rule applies.
    pub(super) response: Response,
    /// Tells whether a rule failed half way: what has been sent stands, but it is not stored.
    pub(super) failure: Failure,
}

/// Puts the body of `response` through the route's rules, where they apply to it. An answer to HEAD gets the fields that
/// GET would.
pub(super) fn run(worker: &Worker, route: &Route, method: &Method, mut response: Response) -> Rewritten {
    if let Some(rewrite) = route.rewrite.as_ref().filter(|rewrite| !rewrite.params.links.is_empty()) {
        rewrite.params.links.repair_fields(&mut response.headers);
    }
    let applied = route.rewrite.as_ref().and_then(|rewrite| apply(worker, rewrite, method, &mut response));
    if route.heeds_integrity {
        response = integrity::watch(worker, response);
    }
    Rewritten { response, failure: applied.unwrap_or_default() }
}

/// True when the origin answered with a part of what the route's rules would rewrite as a whole.
pub(super) fn needs_whole(route: &Route, response: &Response) -> bool {
    let facts = RewriteFacts { status: response.status, headers: &response.headers };
    route.rewrite.as_ref().is_some_and(|rewrite| rewrite::needs_whole(&facts, &rewrite.params))
}

/// The rules of a route, as validators show them.
pub(super) fn rules(route: &Route) -> Option<Rules> {
    route.rewrite.as_ref().map(|rewrite| Rules { fingerprint: rewrite.fingerprint, since: rewrite.since })
}

/// The rules of a route, as stored responses name them; 0 = none.
pub(super) fn fingerprint(route: &Route) -> u64 {
    route.rewrite.as_ref().map_or(0, |rewrite| rewrite.fingerprint)
}

fn apply(worker: &Worker, rewrite: &Rewrite, method: &Method, response: &mut Response) -> Option<Failure> {
    let facts = RewriteFacts { status: response.status, headers: &response.headers };
    let plan = match rewrite::applies(&facts, &rewrite.params) {
        Ok(plan) => plan,
        Err(reason) => {
            tracing::debug!(reason = reason.token(), rules = %rewrite.name, "not rewritten");
            worker.metrics.rewrite(reason.token());
            return None;
        }
    };
    worker.metrics.rewrite("applied");
    let mut failure = Failure::default();
    if *method != Method::HEAD {
        let mut body = std::mem::take(&mut response.body);
        if let Some(coding) = plan.decode {
            body = Body::stream(Filtered::new(body, Decoder::new(coding, DECODED_MAX), Stage::Rewrite));
        }
        response.body = match plan.document {
            Document::Html => {
                let rewriter = rewrite.rules.rewriter(plan.charset);
                failure = rewriter.failure();
                Body::stream(Filtered::new(body, rewriter, Stage::Rewrite))
            }
            Document::Css => Body::stream(Filtered::new(body, rewrite.rules.style_rewriter(), Stage::Rewrite)),
        };
    }
    response.content_length = None;
    let derivation = Derivation { coding: None, level: 0, rules: rewrite.fingerprint, delta: None };
    mend::rewritten(&mut response.headers, derivation, rewrite.since);
    Some(failure)
}
