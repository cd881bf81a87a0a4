//! Early hints (RFC 8297): what a page is going to ask for, told to the browser while the farm still makes the page.
//!
//! What to tell is learned from the pages that went before: the style sheets and scripts that their heads named, once
//! `AGREEING` answers in a row named the same. Only links to the page's own origin are told, at most [`LINKS_MAX`]. A wrong
//! hint costs bytes, never correctness; a page that turns out not to be a 200, or to do without what was told, is forgotten.

use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::cache::directives::ResponseDirectives;
use super::encoding::{is_personal, media_type};

/// Most links in one 103: what a browser fetches at once, and no more than one packet.
pub const LINKS_MAX: usize = 8;
/// Longest URL that is told.
const URL_MAX: usize = 512;
/// Answers in a row that must name the same links before they are told.
const AGREEING: u32 = 5;
/// Answers in a row without a link that was told, after which it is told no more.
const MISSES: u32 = 2;

/// What a page loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// By what element.
    pub kind: Kind,
    /// As the page spells it, entities decoded.
    pub url: String,
    /// `crossorigin`: a preload without the same would not be used.
    pub cors: Cors,
}

/// What a resource is to the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `<link rel=stylesheet>`
    Style,
    /// `<script src>`
    Script,
    /// `<script type=module src>`
    Module,
}

/// `crossorigin`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cors {
    /// Absent.
    None,
    /// Present, with any value but the other.
    Anonymous,
    /// `use-credentials`
    Credentials,
}

impl Resource {
    /// The member of `Link` that preloads it for a page of `host`; `None` for other origins, and for what cannot be spelled
    /// there.
    #[must_use]
    pub fn link(&self, scheme: &str, host: &str) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\');
        if self.url.is_empty() || self.url.len() > URL_MAX || !self.url.bytes().all(plain) {
            return None;
        }
        let first = self.url.split(['/', '?', '#']).next().unwrap_or_default();
        let own = match first.contains(':') {
            // A relative reference has no colon in its first segment (RFC 3986 §4.2).
            true => {
                let rest = self.url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
                rest.and_then(|rest| rest.strip_prefix(host)).is_some_and(|path| path.starts_with('/'))
            }
            false => !self.url.starts_with("//"),
        };
        let relation = match self.kind {
            Kind::Style => "preload; as=style",
            Kind::Script => "preload; as=script",
            Kind::Module => "modulepreload",
        };
        let cors = match self.cors {
            Cors::None => "",
            Cors::Anonymous => "; crossorigin",
            Cors::Credentials => "; crossorigin=use-credentials",
        };
        own.then(|| format!("<{}>; rel={relation}{cors}", self.url))
    }
}

/// Whether early hints are of use to who asks: a browser that goes to a page, over HTTP/2 or later. Older clients stumble
/// over 1xx answers, and what is prefetched is in no hurry.
#[must_use]
pub fn are_of_use(method: &Method, version: Version, request: &HeaderMap) -> bool {
    let navigates = request.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    method == Method::GET && version >= Version::HTTP_2 && navigates && !request.contains_key("sec-purpose")
}

/// Whether others may be told what this answer names: it is a page, and not one person's.
#[must_use]
pub fn may_teach(request: &HeaderMap, response: &HeaderMap) -> bool {
    let directives = ResponseDirectives::parse(response);
    let personal = request.contains_key(COOKIE) && !directives.public;
    media_type(response).is_some_and(|name| name.eq_ignore_ascii_case("text/html"))
        && !personal
        && !request.contains_key(AUTHORIZATION)
        && !response.contains_key(SET_COOKIE)
        && !directives.private
        && !directives.no_store
}

/// True when an answer says that the page is not what it was. A 304 says that it is; what somebody who is known gets instead of
/// it speaks for nobody else.
#[must_use]
pub fn unteaches(status: StatusCode, request: &HeaderMap) -> bool {
    status != StatusCode::OK && status != StatusCode::NOT_MODIFIED && !is_personal(request)
}

/// What is known of one page.
#[derive(Debug, Clone, Default)]
pub struct Lesson {
    seen: Box<[String]>,
    agreed: u32,
    taught: Box<[String]>,
    value: Option<HeaderValue>,
    missed: u32,
}

impl Lesson {
    /// The value of `Link`; `None` while there is nothing to tell.
    #[must_use]
    pub fn value(&self) -> Option<&HeaderValue> {
        self.value.as_ref()
    }

    /// One more 200 has named these links.
    pub fn observe(&mut self, mut links: Vec<String>) {
        links.dedup();
        self.missed = if self.taught.iter().all(|link| links.contains(link)) { 0 } else { self.missed + 1 };
        if self.missed >= MISSES {
            *self = Self::default();
        }
        links.truncate(LINKS_MAX);
        if *self.seen == *links {
            self.agreed = self.agreed.saturating_add(1);
        } else {
            (self.seen, self.agreed) = (links.into(), 1);
        }
        if self.agreed == AGREEING && self.taught != self.seen {
            self.taught = self.seen.clone();
            self.value = HeaderValue::try_from(self.taught.join(", ")).ok().filter(|value| !value.is_empty());
            self.missed = 0;
        }
    }

    /// An answer was no 200: what was learned is forgotten.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn only_links_to_the_same_origin_are_told() {
        for (url, kind, cors, expected) in [
            ("/a.css", Kind::Style, Cors::None, Some("</a.css>; rel=preload; as=style")),
            ("../a.js?b=1", Kind::Script, Cors::None, Some("<../a.js?b=1>; rel=preload; as=script")),
            ("a.mjs", Kind::Module, Cors::Anonymous, Some("<a.mjs>; rel=modulepreload; crossorigin")),
            (
                "https://shop.example/a.js",
                Kind::Script,
                Cors::Credentials,
                Some("<https://shop.example/a.js>; rel=preload; as=script; crossorigin=use-credentials"),
            ),
            ("http://shop.example/a.js", Kind::Script, Cors::None, None),
            ("https://shop.example.evil/a.js", Kind::Script, Cors::None, None),
            ("//cdn.example/a.js", Kind::Script, Cors::None, None),
            ("data:text/css,a", Kind::Style, Cors::None, None),
            ("/a>; rel=preload", Kind::Style, Cors::None, None),
            ("/a b.css", Kind::Style, Cors::None, None),
            ("/ä.css", Kind::Style, Cors::None, None),
            ("", Kind::Style, Cors::None, None),
        ] {
            let resource = Resource { kind, url: url.into(), cors };
            assert_eq!(resource.link("https", "shop.example").as_deref(), expected, "{url}");
        }
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn hints_are_for_navigations_of_browsers() {
        let navigation = ("sec-fetch-mode", "navigate");
        for (method, version, lines, expected) in [
            (Method::GET, Version::HTTP_2, &[navigation][..], true),
            (Method::GET, Version::HTTP_11, &[navigation], false),
            (Method::HEAD, Version::HTTP_2, &[navigation], false),
            (Method::GET, Version::HTTP_2, &[("sec-fetch-mode", "cors")], false),
            (Method::GET, Version::HTTP_2, &[], false),
            (Method::GET, Version::HTTP_2, &[navigation, ("sec-purpose", "prefetch")], false),
        ] {
            assert_eq!(are_of_use(&method, version, &fields(lines)), expected, "{method} {version:?} {lines:?}");
        }
    }

    #[test]
    fn one_persons_page_teaches_nobody() {
        for (request, response, expected) in [
            (&[][..], &[][..], true),
            (&[("cookie", "a=1")], &[], false),
            (&[("cookie", "a=1")], &[("cache-control", "public")], true),
            (&[("authorization", "x")], &[("cache-control", "public")], false),
            (&[], &[("set-cookie", "a=1")], false),
            (&[], &[("cache-control", "private")], false),
            (&[], &[("cache-control", "no-store")], false),
        ] {
            let mut response = fields(response);
            assert!(!may_teach(&fields(request), &response), "what is no page");
            response.insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
            assert_eq!(may_teach(&fields(request), &response), expected, "{request:?} {response:?}");
        }
    }

    #[test]
    fn who_is_known_unteaches_nobody() {
        let unteach = |status: u16, lines: &[(&'static str, &'static str)]| {
            let line = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            unteaches(StatusCode::from_u16(status).expect("a status"), &lines.iter().map(line).collect())
        };
        assert!(unteach(404, &[]) && unteach(302, &[("accept", "text/html")]));
        assert!(!unteach(200, &[]) && !unteach(304, &[]));
        assert!(!unteach(302, &[("cookie", "a=1")]) && !unteach(404, &[("authorization", "Basic x")]));
    }

    #[test]
    fn five_pages_teach_and_two_without_unteach() {
        let told = |steps: &[(usize, &str)]| {
            let mut lesson = Lesson::default();
            for (times, links) in steps {
                for _ in 0..*times {
                    match *links {
                        "error" => lesson.forget(),
                        links => lesson.observe(links.split_whitespace().map(str::to_owned).collect()),
                    }
                }
            }
            lesson.value().map(|value| value.to_str().expect("ASCII").to_owned())
        };
        for (steps, expected) in [
            (&[(4, "a b")][..], None),
            (&[(5, "a b")], Some("a, b")),
            (&[(4, "a b"), (1, "a")], None),
            (&[(5, "a b"), (1, "a")], Some("a, b")),
            (&[(5, "a b"), (2, "a")], None),
            (&[(5, "a b"), (1, "a"), (1, "a b"), (1, "a")], Some("a, b")),
            (&[(5, "a b"), (3, "a b c")], Some("a, b")),
            (&[(5, "a b"), (5, "a b c")], Some("a, b, c")),
            (&[(5, "a b"), (1, "error")], None),
            (&[(5, "a b"), (1, "error"), (4, "a b")], None),
            (&[(9, "")], None),
            (&[(5, "1 2 3 4 5 6 7 8 9")], Some("1, 2, 3, 4, 5, 6, 7, 8")),
        ] {
            assert_eq!(told(steps).as_deref(), expected, "{steps:?}");
        }
    }
}
