//! Whether and how a response body is rewritten by the operator's mandatory rules (RFC 9110 §7.7).

use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::dictionary::DictionaryParams;
use super::encoding::{Readable, content_codings, forbids_transform, has_body, media_type};
use super::filter::Filters;
use super::hash::Fnv;
use super::links::{LinkRule, Links};
use super::page::PageFilters;

/// `[rewrite.NAME]`, the mandatory part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RewriteParams {
    /// `element` rules in file order.
    pub elements: Vec<ElementRule>,
    /// `links` and `https`
    pub links: Links,
    /// Those of `filters` that change pages.
    pub pages: PageFilters,
    /// `on_error`
    pub on_error: OnError,
    /// `level`, `filters` and `forbid`
    pub filters: Filters,
    /// `debug.key_file`: the key that orders to switch filters off are signed with.
    pub debug_key: Option<String>,
    /// `dict`
    pub dictionaries: DictionaryParams,
}

/// One `[[rewrite.NAME.element]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ElementRule {
    /// `select`: a CSS selector that lol_html accepts (validated when the config is).
    pub select: String,
    /// What to do, in file order of keys.
    pub actions: Vec<ElementAction>,
    /// `once`: only the first element that is selected.
    pub once: bool,
    /// `unless`: not behind an element that this selects.
    pub unless: Option<String>,
}

/// What an element rule does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the config key of the same name")]
pub enum ElementAction {
    Replace { attribute: String, from: String, to: String },
    Set { name: String, value: String },
    Unset(String),
    Append(String),
    Prepend(String),
    Before(String),
    After(String),
    ReplaceWith(String),
    Inner(String),
    Remove,
    Unwrap,
}

/// `on_error`: what becomes of a response whose rewriting fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The rest goes out unmodified.
    #[default]
    Pass,
    /// The response is cut.
    Fail,
}

/// What is known of a response that may be rewritten. An answer to HEAD is judged like the GET's: its fields must be the
/// same.
#[derive(Debug, Clone, Copy)]
pub struct RewriteFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as the origin sent them.
    pub headers: &'a HeaderMap,
}

/// What can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// All rules are for it.
    Html,
    /// Only the repair of links is for it.
    Css,
}

/// How a body is to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewritePlan<'a> {
    /// What it is.
    pub document: Document,
    /// To be decoded first; the rewritten body has no coding until one is negotiated.
    pub decode: Option<Readable>,
    /// The `charset` of `Content-Type`; `None` = the document's own declaration, else UTF-8.
    pub charset: Option<&'a str>,
}

/// Why a response is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// There are no rules.
    NoRules,
    /// The status has no body.
    NoBody,
    /// It is a part of a body.
    Partial,
    /// Neither `text/html` nor `application/xhtml+xml`.
    NotHtml,
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// Its charset is not known to keep ASCII where ASCII was, so tags could not be told from text.
    Charset,
    /// It has several codings, or one we cannot decode.
    Undecodable,
}

impl SkipReason {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NoRules => "no_rules",
            Self::NoBody => "no_body",
            Self::Partial => "partial",
            Self::NotHtml => "not_html",
            Self::NoTransform => "no_transform",
            Self::Charset => "charset",
            Self::Undecodable => "undecodable",
        }
    }
}

/// Charsets in which a byte below 0x80 is always the ASCII character: by name, or by how their names begin.
const ASCII: [&str; 4] = ["utf-8", "utf8", "us-ascii", "latin1"];
const ASCII_FAMILIES: [&str; 4] = ["iso-8859-", "windows-", "koi8-", "x-mac"];
/// Charsets in which at least `<`, `>`, quotes and white space are always ASCII: what markup is made of.
const ASCII_MARKUP_FAMILIES: [&str; 7] = ["shift_jis", "shift-jis", "sjis", "euc-", "gb", "big5", "ks_c_5601"];

/// How to rewrite a response.
///
/// # Errors
/// Why it is left as it is.
pub fn applies<'a>(facts: &RewriteFacts<'a>, params: &RewriteParams) -> Result<RewritePlan<'a>, SkipReason> {
    if params.is_empty() {
        return Err(SkipReason::NoRules);
    }
    if !has_body(facts.status) {
        return Err(SkipReason::NoBody);
    }
    if facts.status == StatusCode::PARTIAL_CONTENT || facts.headers.contains_key(CONTENT_RANGE) {
        return Err(SkipReason::Partial);
    }
    let is = |names: &[&str]| {
        media_type(facts.headers).is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
    };
    let document = match () {
        () if is(&["text/html", "application/xhtml+xml"]) => Document::Html,
        () if is(&["text/css"]) && !params.links.is_empty() => Document::Css,
        () => return Err(SkipReason::NotHtml),
    };
    if forbids_transform(facts.headers) {
        return Err(SkipReason::NoTransform);
    }
    let charset = charset(facts.headers);
    let is_readable = if document == Document::Html { has_ascii_markup } else { is_ascii_compatible };
    if !charset.is_none_or(is_readable) {
        return Err(SkipReason::Charset);
    }
    let mut codings = content_codings(facts.headers);
    let decode = match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(name), None) => Some(Readable::from_token(name).ok_or(SkipReason::Undecodable)?),
        _ => return Err(SkipReason::Undecodable),
    };
    Ok(RewritePlan { document, decode, charset })
}

/// True for a part of something that would be rewritten: its bytes must not reach a client, and the whole is to be asked
/// for. Several parts in one body do not say of what they are before they are read, so they count as such.
#[must_use]
pub fn needs_whole(facts: &RewriteFacts<'_>, params: &RewriteParams) -> bool {
    let is_multipart = media_type(facts.headers).is_some_and(|name| name.eq_ignore_ascii_case("multipart/byteranges"));
    let as_a_whole = || {
        let mut headers = facts.headers.clone();
        headers.remove(CONTENT_RANGE);
        applies(&RewriteFacts { status: StatusCode::OK, headers: &headers }, params).is_ok()
    };
    facts.status == StatusCode::PARTIAL_CONTENT && !params.is_empty() && (is_multipart || as_a_whole())
}

/// The value of the `charset` parameter of `Content-Type`, without quotes.
pub(in crate::policy) fn charset(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

/// Whether a byte below 0x80 is the ASCII character, whatever stands before it.
pub(in crate::policy) fn is_ascii_compatible(charset: &str) -> bool {
    ASCII.iter().any(|name| charset.eq_ignore_ascii_case(name)) || begins(charset, &ASCII_FAMILIES)
}

/// Whether tags can be told from text by their ASCII bytes.
fn has_ascii_markup(charset: &str) -> bool {
    is_ascii_compatible(charset) || begins(charset, &ASCII_MARKUP_FAMILIES)
}

fn begins(charset: &str, families: &[&str]) -> bool {
    let begins = |family: &str| charset.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    families.iter().any(|family| begins(family))
}

/// What stands in a fingerprint before what not every policy has; no action has such a number.
const ONCE: u64 = 100;
const MOVE: u64 = 102;
const SECURE: u64 = 103;

/// Part of every fingerprint: raise it when the same rules come to give other bytes.
const RULES_VERSION: u64 = 1;

impl RewriteParams {
    /// True when nothing is to be done to a body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty() && self.links.is_empty() && self.pages.is_empty()
    }

    /// A number that changes with whatever changes the rewritten bytes, and is the same in every process and on every
    /// node: it is part of entity-tags and of what is stored. 0 only without rules.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let mut hash = Fnv::new();
        hash.number(RULES_VERSION);
        for rule in &self.elements {
            hash.text(&rule.select);
            hash.number(rule.actions.len() as u64);
            for action in &rule.actions {
                action.hash(&mut hash);
            }
            if rule.once || rule.unless.is_some() {
                hash.number(ONCE | u64::from(rule.once));
                hash.text(rule.unless.as_deref().unwrap_or_default());
            }
        }
        for rule in self.links.rules() {
            match rule {
                LinkRule::Move { from, to } => {
                    hash.number(MOVE);
                    [&from.scheme, &from.authority, &from.path, to].into_iter().for_each(|text| hash.text(text));
                }
                LinkRule::Secure(host) => {
                    hash.number(SECURE);
                    hash.text(host);
                }
            }
        }
        self.pages.hash(&mut hash);
        hash.0.max(1)
    }
}

impl ElementAction {
    fn hash(&self, hash: &mut Fnv) {
        let (number, texts): (u64, [&str; 3]) = match self {
            Self::Replace { attribute, from, to } => (1, [attribute, from, to]),
            Self::Set { name, value } => (2, [name, value, ""]),
            Self::Unset(name) => (3, [name, "", ""]),
            Self::Append(html) => (4, [html, "", ""]),
            Self::Prepend(html) => (5, [html, "", ""]),
            Self::Before(html) => (6, [html, "", ""]),
            Self::After(html) => (7, [html, "", ""]),
            Self::ReplaceWith(html) => (8, [html, "", ""]),
            Self::Inner(html) => (9, [html, "", ""]),
            Self::Remove => (10, [""; 3]),
            Self::Unwrap => (11, [""; 3]),
        };
        hash.number(number);
        texts.into_iter().for_each(|text| hash.text(text));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::{CACHE_CONTROL, CONTENT_ENCODING};

    use super::*;
    use crate::policy::encoding::Coding;
    use crate::policy::links::Place;
    use crate::policy::page::{DeferParams, LazyParams};

    fn rules(rules: &[(&str, &[ElementAction])]) -> RewriteParams {
        let rule = |(select, actions): &(&str, &[ElementAction])| ElementRule {
            select: (*select).into(),
            actions: actions.to_vec(),
            ..ElementRule::default()
        };
        RewriteParams { elements: rules.iter().map(rule).collect(), ..RewriteParams::default() }
    }

    #[test]
    fn only_whole_html_is_rewritten() {
        let plan = |decode, charset| Ok(RewritePlan { document: Document::Html, decode, charset });
        let html = (CONTENT_TYPE, "text/html");
        type Case<'a> = (u16, Vec<(HeaderName, &'a str)>, Result<RewritePlan<'a>, SkipReason>);
        let cases: Vec<Case<'_>> = vec![
            (200, vec![html.clone()], plan(None, None)),
            (500, vec![(CONTENT_TYPE, "Text/HTML;Charset=\"UTF-8\"")], plan(None, Some("UTF-8"))),
            (200, vec![(CONTENT_TYPE, "application/xhtml+xml; a=b; charset=shift_jis")], plan(None, Some("shift_jis"))),
            (200, vec![(CONTENT_TYPE, "text/html; charset=iso-2022-jp")], Err(SkipReason::Charset)),
            (200, vec![(CONTENT_TYPE, "text/html; charset=ISO-8859-1")], plan(None, Some("ISO-8859-1"))),
            (200, vec![(CONTENT_TYPE, "text/html; charset=windows-1252")], plan(None, Some("windows-1252"))),
            (200, vec![(CONTENT_TYPE, "text/html; charset=utf-16")], Err(SkipReason::Charset)),
            (200, vec![html.clone(), (CONTENT_ENCODING, "gzip")], plan(Some(Coding::Gzip.into()), None)),
            (200, vec![html.clone(), (CONTENT_ENCODING, "gzip, br")], Err(SkipReason::Undecodable)),
            (200, vec![html.clone(), (CONTENT_ENCODING, "deflate")], plan(Some(Readable::Deflate), None)),
            (200, vec![html.clone(), (CONTENT_ENCODING, "compress")], Err(SkipReason::Undecodable)),
            (200, vec![html.clone(), (CACHE_CONTROL, "no-transform")], Err(SkipReason::NoTransform)),
            (200, vec![html.clone(), (CONTENT_RANGE, "bytes 0-1/2")], Err(SkipReason::Partial)),
            (206, vec![html.clone()], Err(SkipReason::Partial)),
            (304, vec![html], Err(SkipReason::NoBody)),
            (200, vec![(CONTENT_TYPE, "text/css")], Err(SkipReason::NotHtml)),
            (200, vec![(CONTENT_TYPE, "text/htmlx")], Err(SkipReason::NotHtml)),
            (200, vec![], Err(SkipReason::NotHtml)),
        ];
        let params = rules(&[("a", &[ElementAction::Remove])]);
        for (status, lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                headers.append(name, value.parse().expect("a value"));
            }
            let facts = RewriteFacts { status: StatusCode::from_u16(status).expect("a status"), headers: &headers };
            assert_eq!(applies(&facts, &params), expected, "{facts:?}");
            assert_eq!(applies(&facts, &RewriteParams::default()), Err(SkipReason::NoRules));
        }
    }

    #[test]
    fn style_sheets_are_for_the_repair_of_links() {
        let links = Links::new(vec![LinkRule::Secure("a".into())]).expect("settled");
        let params = RewriteParams { links, ..RewriteParams::default() };
        for (value, expected) in [
            ("text/css", Ok(Document::Css)),
            ("text/css; charset=windows-1252", Ok(Document::Css)),
            ("text/css; charset=shift_jis", Err(SkipReason::Charset)),
            ("text/html; charset=shift_jis", Ok(Document::Html)),
            ("text/javascript", Err(SkipReason::NotHtml)),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().expect("a value"))]);
            let facts = RewriteFacts { status: StatusCode::OK, headers: &headers };
            assert_eq!(applies(&facts, &params).map(|plan| plan.document), expected, "{value}");
        }
    }

    #[test]
    fn the_fingerprint_is_stable_and_sees_every_change() {
        use ElementAction::{Append, Prepend, Remove, Set, Unset};
        let set = |name: &str, value: &str| Set { name: name.into(), value: value.into() };
        let all = [
            rules(&[]),
            rules(&[("a", &[Remove])]),
            rules(&[("b", &[Remove])]),
            rules(&[("a", &[Remove]), ("a", &[Remove])]),
            rules(&[("a", &[Remove, Remove])]),
            rules(&[("a", &[Append("x".into())])]),
            rules(&[("a", &[Prepend("x".into())])]),
            rules(&[("a", &[set("ab", "c")])]),
            rules(&[("a", &[set("a", "bc")])]),
            rules(&[("a", &[Unset("a".into())])]),
        ];
        let prints: Vec<_> = all.iter().map(RewriteParams::fingerprint).collect();
        for (index, print) in prints.iter().enumerate() {
            assert!(!prints[..index].contains(print), "{:?}", all[index]);
        }
        let links = |from: &str, to: &str| {
            let from = Place::parse(from).expect("a place");
            let links = Links::new(vec![LinkRule::Move { from, to: to.into() }]).expect("settled");
            RewriteParams { links, ..RewriteParams::default() }
        };
        let secure = Links::new(vec![LinkRule::Secure("a".into())]).expect("settled");
        let mut more = vec![
            links("http://a", "http://b"),
            links("https://a", "http://b"),
            links("http://a/b", "http://b"),
            RewriteParams { links: secure, ..RewriteParams::default() },
            all[1].clone(),
            all[1].clone(),
        ];
        let lazy = |first, bytes| PageFilters { lazy: Some(LazyParams { first, bytes }), ..PageFilters::default() };
        let defer = DeferParams { hosts: vec!["a".into()] };
        for pages in [lazy(5, 9), lazy(6, 9), lazy(5, 8), PageFilters { defer: Some(defer), ..PageFilters::default() }]
        {
            more.push(RewriteParams { pages, ..RewriteParams::default() });
        }
        more[4].elements[0].once = true;
        more[5].elements[0].unless = Some("b".into());
        for (index, one) in more.iter().enumerate() {
            let others = more[..index].iter().chain(&all);
            assert!(others.into_iter().all(|other| other.fingerprint() != one.fingerprint()), "{one:?}");
        }
        assert_eq!(prints[0], 0);
        let failing = RewriteParams { on_error: OnError::Fail, ..all[1].clone() };
        assert_eq!(failing.fingerprint(), prints[1], "on_error changes no byte of a good body");
        // Nodes of different builds must agree: when this number changes, RULES_VERSION has to be raised with it.
        assert_eq!(prints[1], 17_940_625_010_778_647_111);
    }
}
