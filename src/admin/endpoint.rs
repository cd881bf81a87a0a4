//! `POST /endpoint`: the operator's word about one endpoint, which wins over the file's until it is taken back.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::json;

use super::routes::{Shared, refusal};
use crate::policy::balance::AdminState;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// `name` of the pool.
    pool: String,
    /// `address` as written in the file.
    endpoint: String,
    /// Null takes an earlier word back.
    state: Option<Word>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Up,
    Drain,
    Down,
}

impl From<Word> for AdminState {
    fn from(word: Word) -> Self {
        match word {
            Word::Up => Self::Up,
            Word::Drain => Self::Drain,
            Word::Down => Self::Down,
        }
    }
}

/// Carries an order out. A request that a browser sent from another site is refused.
pub(super) async fn endpoint(State(view): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "cross_site");
    }
    let Ok(Order { pool, endpoint, state }) = serde_json::from_slice(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "not_an_order");
    };
    match view.set_state(&pool, &endpoint, state.map(AdminState::from)) {
        Ok(states) => Json(json!({
            "pool": pool,
            "endpoint": endpoint,
            "state": states.effective.token(),
            "configured": states.configured.token(),
            "override": state.map(|word| AdminState::from(word).token()),
            "in_flight": states.in_flight,
        }))
        .into_response(),
        Err(reason) => refusal(StatusCode::NOT_FOUND, reason),
    }
}
