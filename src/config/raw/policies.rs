//! `[cache.NAME] [rewrite.NAME] [compress.NAME]`.

use http::HeaderName;
use ipnet::IpNet;

use super::{DAY, GIB, KIB, MIB, TIB};
use crate::config::shape::{List, Map, Refused};
use crate::config::table::{refuse_word, table, words};
use crate::config::units::{Int, Size, Span, written_as_text};
use crate::policy::cache::tags::DEFAULT_FIELDS;
use crate::policy::filter::Filter;

/// A year in milliseconds: a longer freshness lifetime says nothing more (RFC 9111 §1.2.2 caps at 68 years).
const YEAR: u64 = 366 * DAY;

table! {
    /// A cache policy.
    RawCache {
        /// This policy's share of the store. Default: the whole of it.
        max_bytes: Size<KIB, TIB>,
        /// Largest body that is kept.
        max_object: Size<1, TIB> = Size(64 * MIB),
        /// Freshness for answers that name none of their own; 0s is none. Never for requests with Cookie or
        /// Authorization, unless stripped or keyed.
        ttl: Span<0, YEAR> = Span::seconds(0),
        /// Likewise, by status.
        status_ttl: Map<Span<0, YEAR>>,
        /// Freshness whatever the origin says (private, no-store and Set-Cookie still win); 0s is off.
        override_ttl: Span<0, YEAR> = Span::seconds(0),
        /// How long a stale answer is given while it is fetched anew, where the origin says nothing of it; 0s is none.
        stale_while_revalidate: Span<0, YEAR> = Span::seconds(0),
        /// How long a stale answer stands in for a 5xx or a broken one, where the origin says nothing of it; 0s is none.
        stale_if_error: Span<0, YEAR> = Span::seconds(0),
        /// How long a stale answer stands in for an origin that cannot be reached; 0s is none.
        stale_if_unreachable: Span<0, YEAR> = Span::seconds(600),
        /// Clients' no-cache, max-age and min-fresh do not force a fetch.
        ignore_request_directives: bool = false,
        /// What belongs to the key besides scheme, host, path and query.
        key: RawKey [nested],
        /// Cookies removed from the request before it is judged and forwarded; globs.
        strip_cookies: List<String> = List::default(),
        /// Requests that are passed through; any that holds.
        bypass: List<RawBypass> = List::default(),
        /// Goes on fetching for the store when every client that waited has gone.
        fill_after_abort: bool = true,
        /// What is asked for often is fetched anew shortly before it is stale, behind an answer: the slower the origin, the
        /// sooner, in the last tenth of the lifetime at most. One such fetch an object at a time.
        early_refresh: bool = true,
        /// Does not store a page or data (HTML, JSON, XML) under a path that ends like a static file (.css, .png …): an answer
        /// to /account/x.css may be somebody's account.
        deception_guard: bool = true,
        /// Stores answers to QUERY, too, by their request's body: the longest one that is held for that; a longer one is passed
        /// through. Absent: every QUERY is passed through.
        query_body: Size<KIB, { 16 * MIB }>,
        /// Names the cache key in Cache-Status (its first 512 bytes): to every client, with the values of keyed headers and
        /// cookies in it.
        cache_status_key: bool = false,
        /// Response headers that carry tags, by which answers can be purged together. Clients do not see them, except
        /// Cache-Groups.
        tags: List<HeaderName> = List::of(DEFAULT_FIELDS.clone()),
        /// Who may send PURGE to a listener. Absent: nobody.
        purge: RawPurge,
    }
}

table! {
    /// Who may send PURGE; at least one key, and both must hold where both are given.
    RawPurge {
        /// Networks the request must come from: the connection's address or the one of a PROXY protocol header, never
        /// one that a header names.
        allow: List<IpNet, 1>,
        /// File with the bearer token that the request must carry.
        token_file: String,
    }
}

table! {
    /// The cache key.
    RawKey {
        /// Query parameters that are not in the key, though still forwarded; globs.
        ignore_query: List<String> = List::default(),
        /// Also ignores the usual tracking parameters (utm_*, gclid, fbclid …).
        tracking: bool = false,
        /// Sorts query parameters, so that their order makes no difference.
        sort_query: bool = false,
        /// Request headers whose values are in the key.
        headers: List<HeaderName> = List::default(),
        /// Cookies whose values are in the key.
        cookies: List<String> = List::default(),
    }
}

table! {
    /// A request that is passed through; exactly one key.
    RawBypass {
        /// It has a cookie whose name matches this glob.
        cookie: String,
        /// Its path lies under this prefix, on whole segments.
        path: String,
        /// It has this header.
        header: HeaderName,
    }
}

table! {
    /// A rewrite policy.
    RawRewrite {
        /// Which filters are on: off is none, safe is all that are proven to change no meaning. js-ws, css-ws, json-ws and
        /// svg-ws make smaller copies of stored bodies in the background; etag-own gives stored answers without an
        /// entity-tag a strong one; immutable marks files whose name changes with their content; hints-preload sends early
        /// hints (103) for style sheets and scripts that pages have asked for before.
        level: RawRewriteLevel = RawRewriteLevel::Off,
        /// More filters, by name.
        filters: List<RawFilter> = List::default(),
        /// Filters that are off whatever else is said. Say js-ws, css-ws and json-ws where pages that name files by
        /// integrity digests do not pass this process: they are not seen then.
        forbid: List<RawFilter> = List::default(),
        /// Compression dictionaries (RFC 9842): a browser that has an earlier version of a script, style sheet or WebAssembly
        /// file gets what differs. Part of level safe; given, it is on without it; forbid = ["dict"] switches it off. For
        /// stored answers over TLS.
        dict: RawDictionaries,
        /// When a rule fails: pass sends the rest unmodified, fail cuts the response.
        on_error: RawOnError = RawOnError::Pass,
        /// Links that name another place: in pages, style sheets and header fields (Location, Link, Refresh, cookies' Domain).
        links: List<RawLink> = List::default(),
        /// Hosts whose http URLs become https, in the same places: names, or *.NAME for all below one.
        https: List<String> = List::default(),
        /// Rules by CSS selector, applied to every HTML answer.
        element: List<RawElement> = List::default(),
        /// What "lazy" goes by.
        lazy: RawLazy,
        /// What "third-party-defer" goes by.
        third_party_defer as "third-party-defer": RawDefer,
        /// Lets who has a key look into it. Absent: nobody.
        debug: RawDebug,
    }
}

table! {
    /// Compression dictionaries.
    RawDictionaries {
        /// How versions of a file are known: auto is by a version or digest in its name.
        families as "match": RawFamilies = RawFamilies::Auto,
        /// Codings in order of preference.
        codings: List<RawDeltaCoding, 1> = List::of([RawDeltaCoding::Dcz, RawDeltaCoding::Dcb]),
        /// Versions of a file that are kept.
        keep: Int<1, 16> = Int(5),
    }
}

words! {
    /// `match` of `dict`
    RawFamilies {
        "auto" => Auto,
    }
}

words! {
    /// One of `codings` of `dict`.
    RawDeltaCoding {
        "dcz" => Dcz,
        "dcb" => Dcb,
    }
}

table! {
    /// URLs under one place, that now stand under another.
    RawLink {
        /// Where they stood: an absolute URL without a query.
        from: String [required],
        /// Where they stand: an absolute URL, or / for the site's own root.
        to: String [required],
    }
}

table! {
    /// Pictures and frames are loaded when they come near the screen, but for the first ones.
    RawLazy {
        /// Pictures and frames that are left as they are, from the top of a page.
        images: Int<0, 1000> = Int(5),
        /// Bytes of a page within which they are left as they are.
        bytes: Size<0, GIB> = Size(40 * KIB),
    }
}

table! {
    /// Scripts of these hosts run when the page has been read.
    RawDefer {
        /// Names, or *.NAME for all below one.
        hosts: List<String, 1> [required],
    }
}

table! {
    /// Requests with a signed Accel-Debug header can switch filters off, and are told in Accel-Status what each did.
    RawDebug {
        /// File with the key that signs: HMAC-SHA-256 over HOST:SECONDS:NAMES, in an Accel-Debug: SECONDS:NAMES:SIGNATURE.
        key_file: String [required],
    }
}

words! {
    /// `level`
    RawRewriteLevel {
        "off" => Off,
        "safe" => Safe,
    }
}

/// The name of a filter.
#[derive(Debug, Clone)]
pub(in crate::config) struct RawFilter(pub(in crate::config) Filter);

/// Filters of the contract that are not built.
const LATER: [&str; 13] = [
    "lcp-priority",
    "img-dims",
    "html-min",
    "js-min",
    "css-min",
    "csp-nonce",
    "sri-add",
    "speculate",
    "fonts",
    "esi",
    "images",
    "png-lossless",
    "encode",
];

written_as_text! {
    RawFilter => |text| Filter::from_token(text)
        .map(RawFilter)
        .ok_or_else(|| refuse_word(text, &Filter::ALL.map(Filter::token), &LATER));
}

words! {
    /// `on_error`
    RawOnError {
        "pass" => Pass,
        "fail" => Fail,
    }
}

table! {
    /// What to do with every element that a CSS selector picks; the actions run in the order they are written.
    RawElement {
        /// CSS selector.
        select: Selector [required],
        /// Replaces text within an attribute.
        replace: RawReplace,
        /// Attributes to set, by name.
        set: Map<String>,
        /// Removes attributes.
        unset: List<String, 1>,
        /// HTML put inside, at the end.
        append: String,
        /// HTML put inside, at the beginning.
        prepend: String,
        /// HTML put before the element.
        before: String,
        /// HTML put after the element.
        after: String,
        /// HTML put in place of the element.
        replace_with: String,
        /// HTML put in place of what is inside.
        inner: String,
        /// Removes the element and what is inside.
        remove: bool,
        /// Removes the element but keeps what is inside.
        unwrap: bool,
        /// Only the first element that is selected.
        once: bool = false,
        /// Not behind an element that this CSS selector picks; what is appended, not where one is inside either.
        unless: Selector,
    }
}

table! {
    /// Replaces text within an attribute, everywhere it occurs.
    RawReplace {
        /// The attribute.
        attribute: String [required],
        /// What is looked for.
        from: String [required],
        /// What is put there.
        to: String [required],
    }
}

/// A CSS selector that the rewriter understands.
#[derive(Debug, Clone)]
pub(in crate::config) struct Selector(pub(in crate::config) String);

written_as_text! {
    Selector => |text| match text.parse::<lol_html::Selector>() {
        Ok(_) => Ok(Selector(text.to_owned())),
        Err(error) => Err(Refused::new(format!("must be a CSS selector, got {text:?}"), error.to_string())),
    };
}

table! {
    /// A compression policy.
    RawCompress {
        /// Content codings in order of preference.
        codings: List<RawCoding, 1> = List::of([RawCoding::Zstd, RawCoding::Br, RawCoding::Gzip]),
        /// Media types: exact, or type/*.
        types: List<String, 1> = List::of(COMPRESSIBLE.map(str::to_owned)),
        /// Smaller bodies are sent as they are.
        min_size: Size<0, GIB> = Size(KIB),
        /// Stored bodies that are asked for often are coded again at the strongest level, in the background.
        strong: bool = true,
        /// What becomes of answers that are not stored, to requests with cookies or credentials, so that their length tells
        /// no secrets: off codes them like others, pad adds a random length, identity does not code them.
        breach: RawBreach = RawBreach::Off,
    }
}

/// Types worth compressing that need no saying.
const COMPRESSIBLE: [&str; 8] = [
    "text/*",
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/wasm",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
];

words! {
    /// `breach`
    RawBreach {
        "off" => Off,
        "pad" => Pad,
        "identity" => Identity,
    }
}

words! {
    /// One of `codings`.
    RawCoding {
        "zstd" => Zstd,
        "br" => Br,
        "gzip" => Gzip,
    }
}
