//! What is answered where.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::endpoint::endpoint;
use super::explain::explain;
use super::purge::purge;
use super::{View, text};
use crate::observe::metrics;

/// How long a reload may take before the caller hears that it goes on without it.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an order.
const ORDER_BYTES: usize = 64 * 1024;

pub(super) type Shared = State<Arc<dyn View>>;

/// The admin listener's answers; no request body is read but that of `POST /purge`.
pub fn router(view: Arc<dyn View>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/explain", get(explain))
        .route("/reload", post(reload))
        .route("/quarantine/clear", post(clear_quarantine))
        .route("/endpoint", post(endpoint).layer(DefaultBodyLimit::max(ORDER_BYTES)))
        .route("/purge", post(purge).layer(DefaultBodyLimit::max(ORDER_BYTES)))
        .route_layer(middleware::from_fn_with_state(view.clone(), authorize));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not_found") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed") })
        .with_state(view)
}

async fn ready(State(view): Shared) -> Response {
    match view.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => refusal(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn metrics(State(view): Shared) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], view.metrics()).into_response()
}

#[derive(Deserialize)]
struct StatusQuery {
    #[serde(default)]
    format: StatusFormat,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum StatusFormat {
    #[default]
    Json,
    Text,
}

async fn status(State(view): Shared, Query(query): Query<StatusQuery>) -> Response {
    let status = view.status();
    match query.format {
        StatusFormat::Json => Json(status).into_response(),
        StatusFormat::Text => text::render(&status).into_response(),
    }
}

async fn reload(State(view): Shared, request: Request) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "cross_site");
    }
    match tokio::time::timeout(RELOAD_TIMEOUT, view.reload()).await {
        Ok(Ok(generation)) => Json(json!({ "ok": true, "generation": generation })).into_response(),
        Ok(Err(errors)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "ok": false, "errors": errors }))).into_response()
        }
        Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "reload_timeout"),
    }
}

async fn clear_quarantine(State(view): Shared, request: Request) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "cross_site");
    }
    Json(json!({ "cleared": view.clear_quarantine() })).into_response()
}

/// Lets a request pass that carries the token in force, or any when there is none. Takes the same time whether the
/// first or the last byte of a token is wrong.
async fn authorize(State(view): Shared, request: Request, next: Next) -> Response {
    let Some(token) = view.token() else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let bearer = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let right = bearer
        .is_some_and(|(_, given)| aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok());
    if right {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, refusal(StatusCode::UNAUTHORIZED, "unauthorized")).into_response()
}

pub(super) fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
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
    use axum::body::Body;
    use futures_util::future::{self, BoxFuture};
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    /// A process that is what the fields say.
    struct Stub {
        ready: Result<(), &'static str>,
        token: Option<&'static str>,
        /// `None`: the reload never comes to an end.
        reload: Option<Result<u64, Vec<Fault>>>,
    }

    impl View for Stub {
        fn status(&self) -> Status {
            sample()
        }

        fn metrics(&self) -> String {
            "tidegate_up 1\n".into()
        }

        fn ready(&self) -> Result<(), &'static str> {
            self.ready
        }

        fn token(&self) -> Option<Arc<str>> {
            self.token.map(Into::into)
        }

        fn explain(&self, asked: &Asked) -> Result<Explained, String> {
            if asked.url.host() == Some("nowhere") {
                return Err("no listener".into());
            }
            let routing_text = format!("{} {}\n", asked.method, asked.url);
            let routing = json!({ "fields": asked.headers.len(), "client": asked.client.to_string() });
            Ok(Explained { generation: 7, next: "forward", routing, routing_text, pools: Vec::new(), cache: None })
        }

        fn purge(&self, target: Target, soft: bool, _dry: bool) -> BoxFuture<'static, Purged> {
            let told = format!("{target} {soft}");
            Box::pin(async move { Purged { responses: 3, sample: vec![told.into()], ..Purged::default() } })
        }

        fn clear_quarantine(&self) -> usize {
            4
        }

        fn set_state(&self, _: &str, _: &str, _: Option<AdminState>) -> Result<States, &'static str> {
            Err("no_such_pool")
        }

        fn reload(&self) -> BoxFuture<'static, Result<u64, Vec<Fault>>> {
            match self.reload.clone() {
                Some(result) => Box::pin(future::ready(result)),
                None => Box::pin(future::pending()),
            }
        }
    }

    fn healthy() -> Stub {
        Stub { ready: Ok(()), token: None, reload: Some(Ok(8)) }
    }

    async fn answer(stub: Stub, request: http::request::Builder) -> (u16, http::HeaderMap, String) {
        let service = TowerToHyperService::new(router(Arc::new(stub)));
        let response = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn check(stub: Stub, request: &str, status: u16, body: &str) {
        let (method, path) = request.split_once(' ').unwrap();
        let (got, _, text) = answer(stub, http::Request::builder().method(method).uri(path)).await;
        assert_eq!(got, status, "{request}");
        assert!(text.contains(body), "{request}: {text}");
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        check(healthy(), "GET /healthz", 200, "ok\n").await;
        check(healthy(), "GET /readyz", 200, "ready\n").await;
        check(Stub { ready: Err("draining"), ..healthy() }, "GET /readyz", 503, r#"{"error":"draining"}"#).await;
        check(Stub { ready: Err("draining"), ..healthy() }, "GET /healthz", 200, "ok\n").await;
        check(healthy(), "GET /metrics", 200, "tidegate_up 1\n").await;
        check(healthy(), "GET /status", 200, r#""generation":7"#).await;
        check(healthy(), "GET /status?format=json", 200, r#""generation":7"#).await;
        check(healthy(), "GET /status?format=text", 200, "generation 7, watching by inotify\n").await;
        check(healthy(), "GET /status?format=html", 400, "").await;
        check(healthy(), "GET /explain?url=http://a/&format=text", 200, "GET http://a/\n\nnext      forward\n").await;
        let asked = "GET /explain?url=http%3A%2F%2Fa%2F&header=A%3Ab&header=A:c&client=::1&method=HEAD&listener=l";
        check(healthy(), asked, 200, r#""routing":{"client":"::1","fields":2}"#).await;
        check(healthy(), "GET /explain?url=http://nowhere/", 422, r#"{"error":"no listener"}"#).await;
        for query in ["", "url=/a", "url=http://a/&header=x", "url=http://a/&client=x", "url=http://a/&what=x"] {
            check(healthy(), &format!("GET /explain?{query}"), 400, "error").await;
        }
        check(healthy(), "POST /reload", 200, r#"{"generation":8,"ok":true}"#).await;
        check(healthy(), "POST /quarantine/clear", 200, r#"{"cleared":4}"#).await;
        check(healthy(), "GET /reload", 405, r#"{"error":"method_not_allowed"}"#).await;
        check(healthy(), "POST /status", 405, r#"{"error":"method_not_allowed"}"#).await;
        check(healthy(), "GET /nothing", 404, r#"{"error":"not_found"}"#).await;
        check(healthy(), "GET /", 404, r#"{"error":"not_found"}"#).await;
    }

    #[tokio::test]
    async fn metrics_say_what_they_are() {
        let (_, headers, _) = answer(healthy(), http::Request::get("/metrics")).await;
        assert_eq!(headers["content-type"], metrics::CONTENT_TYPE);
    }

    #[tokio::test]
    async fn a_refused_reload_lists_its_faults() {
        let fault = Fault { file: "a.toml".into(), line: Some(1), column: None, message: "bad".into() };
        let stub = Stub { reload: Some(Err(vec![fault])), ..healthy() };
        let expected = r#"{"errors":[{"column":null,"file":"a.toml","line":1,"message":"bad"}],"ok":false}"#;
        check(stub, "POST /reload", 422, expected).await;
    }

    #[tokio::test]
    async fn another_site_cannot_change_anything() {
        for path in ["/reload", "/quarantine/clear"] {
            let request = http::Request::post(path).header("origin", "https://evil.example");
            let (status, _, body) = answer(healthy(), request).await;
            assert_eq!((status, body.as_str()), (403, r#"{"error":"cross_site"}"#), "{path}");
        }
    }

    #[tokio::test]
    async fn a_token_guards_all_but_the_health_checks() {
        let locked = || Stub { token: Some("s3cret"), ..healthy() };
        check(locked(), "GET /healthz", 200, "").await;
        check(locked(), "GET /readyz", 200, "").await;
        for request in ["GET /metrics", "GET /status", "GET /explain?url=http://a/", "POST /reload"] {
            check(locked(), request, 401, r#"{"error":"unauthorized"}"#).await;
        }
        check(locked(), "GET /nothing", 404, "").await;
        for (value, status) in [
            ("Bearer s3cret", 200),
            ("bearer s3cret", 200),
            ("Bearer s3cre", 401),
            ("Bearer s3crets", 401),
            ("Bearer ", 401),
            ("Basic s3cret", 401),
            ("s3cret", 401),
            ("", 401),
        ] {
            let (got, headers, _) =
                answer(locked(), http::Request::get("/status").header("authorization", value)).await;
            assert_eq!(got, status, "{value:?}");
            assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{value:?}");
        }
    }
}
