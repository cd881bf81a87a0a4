//! `[[route]]`.

use http::Method;
use ipnet::IpNet;
use regex::Regex;

use super::{DAY, HOUR, KIB, MIB};
use crate::config::shape::{List, Map};
use crate::config::table::table;
use crate::config::units::{Int, Name, Share, Size, Span};
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
        /// What keeps a client with its pool of a split: client-ip, uri, header:NAME or cookie:NAME; whoever has no such
        /// header or cookie goes anywhere. Absent: chance decides each time.
        split_by: String,
        /// How long the origin may take, where that is not as its pool says.
        timeouts: RawRouteTimeouts,
        /// Sends copies of what goes to the farm to another pool, too. Absent: none.
        mirror: RawMirror,
        /// Request bodies up to this size are read as a whole before an endpoint is taken, so that a slow upload holds
        /// none; what is longer streams from there on. Not for gRPC and upgrades. Absent: all stream.
        buffer_request: Size<1, { 16 * MIB }>,
        /// How far an answer may be read ahead of its client, so that a slow one does not hold an endpoint. Absent: it
        /// is read as the client takes it.
        buffer_response: Size<KIB, { 64 * MIB }>,
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
    /// How long the origin may take; what is absent is as its pool says.
    RawRouteTimeouts {
        /// TCP and TLS together.
        connect: Span<10, HOUR>,
        /// From the last byte sent to the end of the response head.
        first_byte: Span<10, DAY>,
        /// Longest silence inside a body.
        idle: Span<10, DAY>,
        /// The whole exchange with the origin; 0s is no limit.
        total: Span<0, DAY>,
    }
}

table! {
    /// Copies of requests for another pool, marked with X-Mirrored: 1; their answers are discarded. The original neither
    /// waits for its copy nor fails with it.
    RawMirror {
        /// The pool that gets the copies.
        pool: Name [required],
        /// The share of the requests that is copied.
        share: Share = Share(1.0),
        /// Copies what may change something (POST, PUT, DELETE …) too, not only GET, HEAD and OPTIONS.
        unsafe_methods: bool = false,
        /// Copies under way at once, over all workers; further requests are not copied.
        max_in_flight: Int<1, 100_000> = Int(100),
        /// The longest request body that is copied; a request with a longer one is not.
        max_body: Size<0, { 16 * MIB }> = Size(64 * KIB),
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
