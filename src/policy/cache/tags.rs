//! Tags: names that an origin gives a response, by which it can be purged together with others.
//!
//! Which fields carry them is the policy's `tags`. They separate as their inventors do: `Surrogate-Key` (Fastly) by
//! whitespace, `Cache-Groups` as a list of strings (RFC 9875), all others (`Cache-Tag`, `xkey`, `X-Cache-Tags` …) by
//! commas and whitespace. Tags are exact and case-sensitive.
//!
//! A response of which not every tag can be remembered is not stored: a purge would miss it.

use http::{HeaderMap, HeaderName};

use super::groups::{self, CACHE_GROUPS};
use super::storing::NotStored;
use crate::policy::fields;

/// Most tags of one response. A page of a large shop has some hundreds.
pub const MAX_TAGS: usize = 1024;

/// Bytes of one tag; what Fastly allows for a key and Cloudflare for a tag.
pub const MAX_TAG_BYTES: usize = 1024;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// The fields that carry tags where a policy names none: everybody's, as they are.
pub static DEFAULT_FIELDS: [HeaderName; 5] = [
    SURROGATE_KEY,
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
    HeaderName::from_static("x-cache-tags"),
    CACHE_GROUPS,
];

/// What a response is called, each once, sorted. Usually empty, and then without an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags {
    names: Box<[Box<[u8]>]>,
    /// Those of `names` that came by `Cache-Groups`: only they answer to `Cache-Group-Invalidation`.
    groups: Box<[Box<[u8]>]>,
}

impl Tags {
    /// The tags in the fields `fields` of a message.
    ///
    /// # Errors
    /// [`NotStored::TooManyTags`] and [`NotStored::TagTooLong`].
    pub fn read(headers: &HeaderMap, fields: &[HeaderName]) -> Result<Self, NotStored> {
        let (mut names, mut groups) = (Vec::new(), Vec::new());
        for field in fields.iter().filter(|field| headers.contains_key(*field)) {
            if *field == CACHE_GROUPS {
                groups.extend(groups::strings(headers, field).unwrap_or_default().into_iter().map(Box::from));
                continue;
            }
            let by_comma = *field != SURROGATE_KEY;
            let separates = |byte: &u8| byte.is_ascii_whitespace() || (by_comma && *byte == b',');
            for line in headers.get_all(field) {
                names.extend(line.as_bytes().split(separates).filter(|tag| !tag.is_empty()).map(Box::<[u8]>::from));
            }
        }
        names.extend(groups.iter().cloned());
        let (names, groups) = (distinct(names), distinct(groups));
        if names.len() > MAX_TAGS {
            return Err(NotStored::TooManyTags);
        }
        if names.iter().any(|tag| tag.len() > MAX_TAG_BYTES) {
            return Err(NotStored::TagTooLong);
        }
        Ok(Self { names, groups })
    }

    /// All of them.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.names.iter().map(|tag| &**tag)
    }

    /// The cache groups among them.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.groups.iter().map(|tag| &**tag)
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Bytes this takes in memory, for the ledger.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.names.iter().chain(&self.groups).map(|tag| 32 + tag.len() as u64).sum()
    }
}

fn distinct(mut tags: Vec<Box<[u8]>>) -> Box<[Box<[u8]>]> {
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}

/// Takes the fields out of a response on its way to the client, which has no use for them and should not learn how a site
/// is put together. `Cache-Groups` stays: it is for every cache on the way (RFC 9875).
pub fn hide(headers: &mut HeaderMap, fields: &[HeaderName]) {
    fields::remove_where(headers, |name| *name != CACHE_GROUPS && fields.contains(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(lines: &[(&'static str, &str)]) -> Result<Tags, NotStored> {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::try_from(*value).expect("a valid value"))
        };
        Tags::read(&lines.iter().map(line).collect(), &DEFAULT_FIELDS)
    }

    #[test]
    fn every_inventor_has_a_separator() {
        for (lines, names, groups) in [
            (&[][..], &[][..], 0),
            (&[("surrogate-key", "b a  b")], &["a", "b"], 0),
            (&[("surrogate-key", "a,b c")], &["a,b", "c"], 0),
            (&[("cache-tag", "a, b,c")], &["a", "b", "c"], 0),
            (&[("xkey", "a b,c")], &["a", "b", "c"], 0),
            (&[("xkey", "a"), ("xkey", "b"), ("x-cache-tags", "c, ,a")], &["a", "b", "c"], 0),
            (&[("cache-groups", "\"a b\", \"c\"")], &["a b", "c"], 2),
            (&[("cache-groups", "\"a\", c"), ("xkey", "A")], &["A"], 0),
            (&[("cache-groups", "\"a\""), ("xkey", "a")], &["a"], 1),
            (&[("x-magento-tags", "a")], &[], 0),
        ] {
            let tags = read(lines).expect("few and short");
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            assert_eq!(tags.names().collect::<Vec<_>>(), names, "{lines:?}");
            assert_eq!(tags.groups().len(), groups, "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_all_be_remembered_is_refused() {
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(read(&[("xkey", &many(MAX_TAGS))]).map(|tags| tags.names().len()), Ok(MAX_TAGS));
        assert_eq!(read(&[("xkey", &many(MAX_TAGS + 1))]), Err(NotStored::TooManyTags));
        assert_eq!(read(&[("xkey", &many(10_000))]), Err(NotStored::TooManyTags));
        let twice = format!("{} {}", many(MAX_TAGS), many(MAX_TAGS));
        assert!(read(&[("xkey", &twice)]).is_ok(), "the same ones again");
        let long = "x".repeat(MAX_TAG_BYTES);
        assert!(read(&[("xkey", &long)]).is_ok());
        assert_eq!(read(&[("xkey", &format!("{long}x"))]), Err(NotStored::TagTooLong));
    }

    #[test]
    fn clients_see_groups_only() {
        let lines = [("surrogate-key", "a"), ("cache-groups", "\"a\""), ("etag", "\"a\"")];
        let mut headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        hide(&mut headers, &DEFAULT_FIELDS);
        assert!(
            headers.len() == 2 && headers.contains_key(CACHE_GROUPS) && headers.contains_key("etag"),
            "{headers:?}"
        );
    }
}
