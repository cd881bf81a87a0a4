//! `[[route]]`.

use http::Method;
use ipnet::IpNet;
use regex::Regex;

use crate::config::shape::{List, Map};
use crate::config::table::table;
use crate::config::units::{Int, Name};
use http::HeaderName;

table! {
    /// What becomes of a request: exactly one of pool, split, redirect and respond.
    RawRoute {
        /// Shown in logs, metrics and by tidegate route.
        name: Name,
        /// Listeners it belongs to. Default: all that are not redirecting.
        listener: List<Name, 1>,
        /// Host names, *.example for all below one. Default: any.
        host: List<String, 1>,
        /// "/static/": prefix on whole segments; "= /x": exact; "~ ^/x": regular expression. Default: any.
        path: String,
        /// Methods. Default: all.
        methods: List<Method, 1>,
        /// Further conditions; all must hold.
        when: List<RawCondition> = List::default(),
        /// The pool that answers.
        pool: Name,
        /// Several pools that share the traffic by weight.
        split: List<RawSplit, 1>,
        /// Answers with a redirect.
        redirect: RawRedirect,
        /// Answers with a fixed response.
        respond: RawRespond,
        /// Cache policy.
        cache: Name,
        /// Rewrite policy.
        rewrite: Name,
        /// Compression policy.
        compress: Name,
        /// Edits of the request on its way to the origin.
        request: RawRequestEdits [nested],
        /// Edits of the response on its way to the client.
        response: RawResponseEdits [nested],
    }
    later { "guard" }
}

table! {
    /// One of header, query and cookie with one of equals, matches and present; or client alone.
    RawCondition {
        /// Name of a request header.
        header: HeaderName,
        /// Name of a query parameter.
        query: String,
        /// Name of a cookie.
        cookie: String,
        /// Networks the client is in.
        client: List<IpNet, 1>,
        /// The value is this.
        equals: String,
        /// The value matches this regular expression.
        matches: Regex,
        /// It is there (true) or not (false).
        present: bool,
    }
}

table! {
    /// One pool of a split.
    RawSplit {
        /// The pool.
        pool: Name [required],
        /// Its share relative to the others.
        weight: Int<0, 1_000_000> [required],
    }
}

table! {
    /// Answers with a redirect.
    RawRedirect {
        /// Where to; $uri (path and query), $path, $query, $host and $scheme stand for the request's.
        to: String [required],
        /// 301, 302, 303, 307 or 308.
        status: Int<300, 399> = Int(308),
    }
}

table! {
    /// Answers with a fixed response.
    RawRespond {
        /// Final status.
        status: Int<200, 599> = Int(200),
        /// The body as text.
        body: String,
        /// File of the body, relative to this one.
        body_file: String,
        /// Default: by the file's extension, else text/plain; charset=utf-8.
        content_type: String,
    }
}

table! {
    /// Edits of the request on its way to the origin, in this order: strip, rewrite, add, then fields.
    RawRequestEdits {
        /// Prefix taken off the path, on whole segments.
        strip_prefix: String,
        /// Replaces the path by regular expression.
        rewrite: RawPathRewrite,
        /// Prefix put before the path.
        add_prefix: String,
        /// Headers set, whatever was there.
        set: Map<String>,
        /// Headers removed, before any is set.
        remove: List<HeaderName> = List::default(),
    }
}

table! {
    /// Replaces the path by regular expression.
    RawPathRewrite {
        /// Pattern.
        from: Regex [required],
        /// Replacement; $1 or ${name} stand for groups (write $${name}).
        to: String [required],
    }
}

table! {
    /// Edits of the response on its way to the client.
    RawResponseEdits {
        /// Headers set, whatever was there.
        set: Map<String>,
        /// Headers removed, before any is set.
        remove: List<HeaderName> = List::default(),
    }
}
