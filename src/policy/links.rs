//! Repair of links: URLs of one place become those of another, in pages, style sheets and fields.
//!
//! A site that moved, that knows itself by an internal name, or that still says `http` where it is served over TLS, names
//! itself in places that no header edit reaches: attributes, `srcset`, `url()`, `Location`, `Refresh`, cookies. A rule names
//! the place and its successor; a URL is repaired by the first rule whose place it begins with, on a whole segment. What is
//! no URL, or another place's, stays as it was, to the byte.
//!
//! Repairing twice is repairing once: [`Links::new`] refuses a rule whose result some rule would repair again.

use http::header::{CONTENT_LOCATION, LINK, LOCATION, REFRESH, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkRule {
    /// URLs under one place now stand under another.
    Move {
        /// Where they stood.
        from: Place,
        /// Where they stand: a URL without a slash at its end; empty = the page's own origin.
        to: String,
    },
    /// `http` becomes `https` for this host, or with `*.` for every host below it.
    Secure(String),
}

/// An origin, and a path under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// `http` or `https`.
    pub scheme: String,
    /// Host, lower case, and the port where it is not the scheme's own.
    pub authority: String,
    /// Without a slash at its end; empty = all of the origin.
    pub path: String,
}

impl Place {
    /// Parses an absolute URL of `http` or `https` without a query.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text)?;
        let scheme = url.scheme?.to_ascii_lowercase();
        let plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\');
        let path = url.rest.trim_end_matches('/');
        let valid = !url.authority.is_empty() && !url.authority.contains('@') && text.bytes().all(plain);
        valid.then(|| Self { authority: own_port(&scheme, url.authority), scheme, path: path.to_owned() })
    }
}

/// A URL that names a host, in parts.
struct Url<'a> {
    /// `None` in `//host/path`.
    scheme: Option<&'a str>,
    authority: &'a str,
    /// Path, query and fragment.
    rest: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, behind) = match text.strip_prefix("//") {
            Some(behind) => (None, behind),
            None => {
                let (scheme, behind) = text.split_once("://")?;
                (Some(scheme), behind)
            }
        };
        let known = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let (authority, rest) = behind.split_at_checked(behind.find(['/', '?', '#', '\\']).unwrap_or(behind.len()))?;
        scheme.is_none_or(known).then_some(Self { scheme, authority, rest })
    }
}

/// The authority in lower case, without the port that goes without saying.
fn own_port(scheme: &str, authority: &str) -> String {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
}

impl LinkRule {
    fn repair(&self, url: &Url<'_>) -> Option<String> {
        match self {
            Self::Move { from, to } => {
                let same = url.scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case(&from.scheme))
                    && own_port(&from.scheme, url.authority) == from.authority;
                let rest = url.rest.strip_prefix(from.path.as_str()).filter(|_| same)?;
                // Browsers take a backslash for a slash.
                let whole = rest.is_empty() || rest.starts_with(['/', '?', '#', '\\']);
                let root = if to.is_empty() && !rest.starts_with('/') { "/" } else { "" };
                whole.then(|| format!("{to}{root}{rest}"))
            }
            Self::Secure(host) => {
                url.scheme.filter(|scheme| scheme.eq_ignore_ascii_case("http"))?;
                let authority = own_port("http", url.authority);
                let below = |host: &str| authority.strip_suffix(host).is_some_and(|name| !name.is_empty());
                let named = host.strip_prefix('*').map_or_else(|| authority == *host, below);
                named.then(|| format!("https://{authority}{}", url.rest))
            }
        }
    }
}

/// All rules of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(Vec<LinkRule>);

impl Links {
    /// The rules, in the order in which they are asked.
    ///
    /// # Errors
    /// The first rule whose result some rule would repair again.
    pub fn new(rules: Vec<LinkRule>) -> Result<Self, LinkRule> {
        let links = Self(rules);
        let again = links.0.iter().find(|rule| match rule {
            LinkRule::Move { to, .. } => links.repair(to).or_else(|| links.repair(&format!("{to}/"))).is_some(),
            LinkRule::Secure(_) => false,
        });
        let again = again.cloned();
        again.map_or(Ok(links), Err)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[LinkRule] {
        &self.0
    }

    /// True without rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A URL, white space around it left alone; `None` = as it is. Cost where it names no host: a look at its beginning.
    #[must_use]
    pub fn repair(&self, text: &str) -> Option<String> {
        let url = text.trim_ascii();
        let parsed = Url::parse(url)?;
        let repaired = self.0.iter().find_map(|rule| rule.repair(&parsed))?;
        let before = text.len() - text.trim_ascii_start().len();
        let after = text.trim_ascii_end().len();
        Some([text.get(..before)?, &repaired, text.get(after..)?].concat())
    }

    /// `srcset` and `imagesrcset`: candidates with descriptors (WHATWG HTML §4.8.4.2.1).
    #[must_use]
    pub fn repair_srcset(&self, text: &str) -> Option<String> {
        let (mut rest, mut repaired, mut changed) = (text, String::with_capacity(text.len()), false);
        while !rest.is_empty() {
            let start = rest.find(|c: char| !c.is_ascii_whitespace() && c != ',').unwrap_or(rest.len());
            let (gap, behind) = rest.split_at_checked(start)?;
            let end = behind.find(|c: char| c.is_ascii_whitespace()).unwrap_or(behind.len());
            let (candidate, behind) = behind.split_at_checked(end)?;
            let url = candidate.trim_end_matches(',');
            // A comma behind the URL ends the candidate; otherwise its descriptors go to the next comma outside of brackets.
            let (descriptors, behind) =
                if url.len() == candidate.len() { split_descriptors(behind)? } else { ("", behind) };
            let new = self.repair(url);
            changed |= new.is_some();
            repaired.push_str(gap);
            repaired.push_str(new.as_deref().unwrap_or(url));
            repaired.push_str(candidate.get(url.len()..)?);
            repaired.push_str(descriptors);
            rest = behind;
        }
        changed.then_some(repaired)
    }

    /// `Refresh`, as a field and in `<meta>`: a time, and behind it a URL (WHATWG HTML §4.2.5.3).
    #[must_use]
    pub fn repair_refresh(&self, text: &str) -> Option<String> {
        let at = text.find([';', ','])? + 1;
        let (time, behind) = text.split_at_checked(at)?;
        let value = behind.trim_ascii_start();
        let named = value.get(..3).filter(|name| name.eq_ignore_ascii_case("url"));
        let value = match named.and_then(|_| value.get(3..)?.trim_ascii_start().strip_prefix('=')) {
            Some(value) => value.trim_ascii_start(),
            None => value,
        };
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        let inner = value.strip_prefix(['"', '\'']).unwrap_or(value);
        let url = quote.and_then(|quote| inner.split(quote).next()).unwrap_or(inner);
        let start = text.len() - inner.len();
        let repaired = self.repair(url)?;
        debug_assert!(start >= time.len());
        Some([text.get(..start)?, &repaired, text.get(start + url.len()..)?].concat())
    }

    /// `Link` (RFC 8288): what stands between `<` and `>`, outside of quotes.
    #[must_use]
    pub fn repair_link(&self, text: &str) -> Option<String> {
        let (mut repaired, mut changed, mut quoted) = (String::with_capacity(text.len()), false, false);
        let mut rest = text;
        while let Some(at) = rest.find(['<', '"']) {
            let (before, behind) = rest.split_at_checked(at + 1)?;
            repaired.push_str(before);
            rest = behind;
            if before.ends_with('"') {
                quoted = !quoted;
                continue;
            }
            let url = behind.get(..behind.find('>')?)?;
            if let Some(new) = self.repair(url).filter(|_| !quoted) {
                repaired.push_str(&new);
                changed = true;
                rest = behind.get(url.len()..)?;
            }
        }
        repaired.push_str(rest);
        changed.then_some(repaired)
    }

    /// `Set-Cookie`: a `Domain` that is the host of a moved place becomes that of its successor, or goes where that is the
    /// page's own origin.
    #[must_use]
    pub fn repair_cookie(&self, text: &str) -> Option<String> {
        let host = |authority: &str| authority.split(':').next().unwrap_or_default().to_owned();
        let mut changed = false;
        let attributes = text.split(';').enumerate().filter_map(|(index, part)| {
            let (name, value) = part.split_once('=').filter(|_| index > 0).unwrap_or_default();
            let domain = value.trim().trim_start_matches('.');
            let moved = self.0.iter().find_map(|rule| match rule {
                LinkRule::Move { from, to } if host(&from.authority).eq_ignore_ascii_case(domain) => Some(to),
                _ => None,
            });
            match moved.filter(|_| name.trim().eq_ignore_ascii_case("domain")) {
                None => Some(part.to_owned()),
                Some(to) => {
                    changed = true;
                    Url::parse(to).map(|url| format!(" Domain={}", host(url.authority)))
                }
            }
        });
        let repaired = attributes.collect::<Vec<_>>().join(";");
        changed.then_some(repaired)
    }

    /// Repairs the fields of a response that hold URLs. Cost: five look-ups.
    pub fn repair_fields(&self, headers: &mut HeaderMap) {
        type Repair = fn(&Links, &str) -> Option<String>;
        let fields: [(HeaderName, Repair); 5] = [
            (LOCATION, Self::repair),
            (CONTENT_LOCATION, Self::repair),
            (REFRESH, Self::repair_refresh),
            (LINK, Self::repair_link),
            (SET_COOKIE, Self::repair_cookie),
        ];
        for (name, repair) in fields {
            if let http::header::Entry::Occupied(mut entry) = headers.entry(name) {
                for value in entry.iter_mut() {
                    let repaired = value.to_str().ok().and_then(|text| repair(self, text));
                    if let Some(new) = repaired.and_then(|text| HeaderValue::try_from(text).ok()) {
                        *value = new;
                    }
                }
            }
        }
    }
}

/// Descriptors up to the next comma outside of brackets, with it.
fn split_descriptors(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    let end = text.find(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    text.split_at_checked(end.map_or(text.len(), |end| end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let place = |text: &str| Place::parse(text).expect("a place");
        let rules = [
            ("http://old.example", "https://new.example"),
            ("http://inner:8080/app/", ""),
            ("https://a.b:444", "//c.d/e"),
        ];
        let moved = rules.map(|(from, to)| LinkRule::Move { from: place(from), to: to.into() });
        let secure = ["shop.example", "*.cdn.example"].map(|host| LinkRule::Secure(host.into()));
        Links::new(moved.into_iter().chain(secure).collect()).expect("settled rules")
    }

    #[track_caller]
    fn check(repair: fn(&Links, &str) -> Option<String>, text: &str, expected: Option<&str>) {
        let once = repair(&links(), text);
        assert_eq!(once.as_deref(), expected, "{text}");
        assert_eq!(once.and_then(|once| repair(&links(), &once)), None, "{text}: once more changes nothing");
    }

    #[test]
    fn urls_are_repaired_by_whole_segments() {
        for (url, expected) in [
            ("http://old.example/a?b#c", Some("https://new.example/a?b#c")),
            ("HTTP://Old.Example:80/A", Some("https://new.example/A")),
            ("http://old.example", Some("https://new.example")),
            ("http://old.example?q", Some("https://new.example?q")),
            (" //old.example/a\n", Some(" https://new.example/a\n")),
            ("https://old.example/a", None),
            ("http://old.example:81/a", None),
            ("http://old.example.evil/a", None),
            ("http://old.example@evil/a", None),
            ("http://old.example\\@evil/a", Some("https://new.example\\@evil/a")),
            ("http://inner:8080/app/x", Some("/x")),
            ("http://inner:8080/app", Some("/")),
            ("http://inner:8080/app?a", Some("/?a")),
            ("http://inner:8080/apple", None),
            ("https://a.b:444/x", Some("//c.d/e/x")),
            ("http://shop.example/a", Some("https://shop.example/a")),
            ("http://shop.example:8080/a", None),
            ("//shop.example/a", None),
            ("http://x.cdn.example:80/a", Some("https://x.cdn.example/a")),
            ("http://cdn.example/a", None),
            ("http://.cdn.example/a", None),
            ("/old.example", None),
            ("ftp://old.example/", None),
            ("javascript://old.example/%0aa()", None),
            ("", None),
        ] {
            check(Links::repair, url, expected);
        }
    }

    #[test]
    fn every_place_of_a_url() {
        for (srcset, expected) in [
            ("http://old.example/a.png 1x, /b.png 2x", Some("https://new.example/a.png 1x, /b.png 2x")),
            (
                "http://old.example/a.png, http://old.example/b.png 2x",
                Some("https://new.example/a.png, https://new.example/b.png 2x"),
            ),
            (" ,http://old.example/a,b 1x,,", Some(" ,https://new.example/a,b 1x,,")),
            ("x 1(,)y, http://old.example/a", Some("x 1(,)y, https://new.example/a")),
            ("/a.png 1x", None),
            ("", None),
        ] {
            check(Links::repair_srcset, srcset, expected);
        }
        for (refresh, expected) in [
            ("5; url=http://old.example/a", Some("5; url=https://new.example/a")),
            ("0;URL='http://old.example/a'", Some("0;URL='https://new.example/a'")),
            ("0, http://old.example/a", Some("0, https://new.example/a")),
            ("5", None),
            ("5; url=/a", None),
        ] {
            check(Links::repair_refresh, refresh, expected);
        }
        for (link, expected) in [
            (
                "<http://old.example/a>; rel=\"next\", </b>; title=\"<http://old.example/>\"",
                Some("<https://new.example/a>; rel=\"next\", </b>; title=\"<http://old.example/>\""),
            ),
            ("</a>; rel=preload", None),
            ("<http://old.example/a", None),
        ] {
            check(Links::repair_link, link, expected);
        }
        for (cookie, expected) in [
            (
                "a=Domain=old.example; Domain=.old.example; Path=/",
                Some("a=Domain=old.example; Domain=new.example; Path=/"),
            ),
            ("a=b; domain=INNER; Secure", Some("a=b; Secure")),
            ("a=b; Domain=other.example", None),
            ("Domain=old.example", None),
        ] {
            check(Links::repair_cookie, cookie, expected);
        }
    }

    #[test]
    fn fields_with_urls_are_repaired_and_others_are_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "http://old.example/a"),
            ("set-cookie", "a=1; Domain=old.example"),
            ("set-cookie", "b=2"),
            ("x-other", "http://old.example/a"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        links().repair_fields(&mut headers);
        let all: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect();
        assert_eq!(
            all,
            [
                "location: https://new.example/a",
                "set-cookie: a=1; Domain=new.example",
                "set-cookie: b=2",
                "x-other: http://old.example/a"
            ]
        );
    }

    #[test]
    fn a_rule_that_feeds_a_rule_is_refused() {
        let rule = |from: &str, to: &str| LinkRule::Move { from: Place::parse(from).expect("a place"), to: to.into() };
        for (rules, settled) in [
            (vec![rule("http://a", "http://b")], true),
            (vec![rule("http://a", "http://a/b")], false),
            (vec![rule("http://a", "http://b"), rule("http://b", "http://c")], false),
            (vec![rule("http://a", "http://b"), LinkRule::Secure("b".into())], false),
            (vec![rule("http://a/x", "http://a/y")], true),
        ] {
            assert_eq!(Links::new(rules.clone()).is_ok(), settled, "{rules:?}");
        }
        for text in ["a.example", "ftp://a", "http://", "http://a?b", "http://a@b", "//a"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
