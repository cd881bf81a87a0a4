//! Sticky sessions: a cookie that leads a client back to the endpoint that answered it first.
//!
//! The cookie's value stands for an endpoint of a pool and for nothing else: it is made by the owner of a secret, tells a
//! client nothing, and cannot be made up. It is led by as long as the endpoint can answer, also while that drains; when
//! it cannot, another one answers and the client gets a new cookie.

use std::time::Duration;

use http::HeaderValue;

/// `sticky`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyParams {
    /// `cookie`: what its name begins with; a part of the pool's own follows, so that two pools of one host do not
    /// overwrite each other's.
    pub cookie: String,
    /// `ttl`, from when the cookie is given; `None` = until the browser is closed.
    pub ttl: Option<Duration>,
    /// `same_site`
    pub same_site: SameSite,
}

/// `same_site` (RFC 6265bis §4.1.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// Not sent from other sites.
    Strict,
    /// Sent from other sites when a link is followed.
    #[default]
    Lax,
    /// Always sent; browsers want `Secure` with it.
    None,
}

impl StickyParams {
    /// The `Set-Cookie` field that gives a client the value `token` under `name`. `Secure` when the client came by TLS: then it must
    /// not be sent in the clear; a client that came without could never send it back.
    #[must_use]
    pub fn set_cookie(&self, name: &str, token: &str, secure: bool) -> Option<HeaderValue> {
        let max_age = self.ttl.map_or(String::new(), |ttl| format!("; Max-Age={}", ttl.as_secs()));
        let same_site = match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        let secure = if secure { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{name}={token}; Path=/{max_age}; HttpOnly; SameSite={same_site}{secure}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_are_what_was_asked_for() {
        let hour =
            StickyParams { cookie: "tg".into(), ttl: Some(Duration::from_secs(3600)), same_site: SameSite::default() };
        let session = StickyParams { ttl: None, same_site: SameSite::None, ..hour.clone() };
        for (params, secure, expected) in [
            (&hour, false, "tg=abc; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
            (&hour, true, "tg=abc; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"),
            (&session, true, "tg=abc; Path=/; HttpOnly; SameSite=None; Secure"),
        ] {
            assert_eq!(params.set_cookie("tg", "abc", secure).expect("a field value"), expected);
        }
    }
}
