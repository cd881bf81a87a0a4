//! `[[route]]`.

use std::collections::BTreeMap;

use http::StatusCode;

use super::fields::Message;
use super::page::{PLAIN_TEXT, content_type};
use super::{Named, Validation, items};
use crate::config::model::{RouteAction, RouteConfig};
use crate::config::raw::{RawCondition, RawPathRewrite, RawRedirect, RawRequestEdits, RawRespond, RawRoute};
use crate::config::shape::{Given, Place, Setting};
use crate::config::units::{Name, is_host_name, is_host_or_ip, parse_regex};
use crate::policy::route::{Condition, HostPattern, PathPattern, RequestEdits, RouteMatch, Test};

/// What may follow `$` in a redirect.
const VARIABLES: [&str; 5] = ["uri", "path", "query", "host", "scheme"];

impl Validation<'_> {
    /// The route at `index` in the order of the files.
    pub(super) fn route(&mut self, index: usize, raw: &Given<RawRoute>, named: &mut Named) -> RouteConfig {
        let action = self.action(raw, named);
        let mut resolve =
            |name: &Setting<Name>, names: &mut super::Names| name.given().and_then(|name| names.resolve(name, self));
        let cache = resolve(&raw.cache, &mut named.caches);
        let rewrite = resolve(&raw.rewrite, &mut named.rewrites);
        let compress = resolve(&raw.compress, &mut named.compressions);
        RouteConfig {
            matching: self.matching(index, raw, named),
            action,
            cache,
            rewrite,
            compress,
            request: self.request_edits(&raw.request),
            response: self.field_edits(&raw.response.set, &raw.response.remove, Message::Response),
        }
    }

    /// Reports names that two routes have.
    pub(super) fn unique_route_names(&mut self, routes: &[Given<RawRoute>]) {
        let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
        for name in routes.iter().filter_map(|route| route.name.given()) {
            if let Some(first) = seen.insert(&name.value.0, &name.place) {
                let fault = name.place.fault("is taken", "give each its own name");
                self.faults.push(fault.related(&first.at, "first defined here"));
            }
        }
    }

    /// Warns about routes that match on the very same as an earlier one, which always wins.
    pub(super) fn reachable_routes(&mut self, raw: &[Given<RawRoute>], routes: &[RouteConfig]) {
        let mut seen: BTreeMap<String, (&Given<RawRoute>, &str)> = BTreeMap::new();
        for (given, route) in raw.iter().zip(routes) {
            // Conditions hold compiled patterns, which compare by their text only.
            let asked = format!("{:?}", RouteMatch { name: String::new(), ..route.matching.clone() });
            if let Some((first, name)) = seen.get(&asked) {
                let what = format!("never taken: it matches on the same as {name:?}");
                let warning = given.place.warning(what, "change one of them, or remove it");
                self.faults.push(warning.related(&first.place.at, "always wins"));
            } else {
                seen.insert(asked, (given, &route.matching.name));
            }
        }
    }

    fn matching(&mut self, index: usize, raw: &Given<RawRoute>, named: &mut Named) -> RouteMatch {
        RouteMatch {
            name: raw.name.given().map_or_else(|| format!("route {}", index + 1), |name| name.value.0.clone()),
            listeners: raw
                .listener
                .given()
                .map(|listed| listed.0.iter().map(|name| self.listener_name(name, named)).collect()),
            hosts: items(&raw.host).iter().filter_map(|host| self.host(host)).collect(),
            path: raw.path.given().and_then(|path| self.path(path)).unwrap_or_default(),
            methods: items(&raw.methods).iter().map(|method| method.value.clone()).collect(),
            when: raw.when.0.iter().filter_map(|condition| self.condition(condition)).collect(),
        }
    }

    fn listener_name(&mut self, name: &Given<Name>, named: &mut Named) -> String {
        let found = named.listeners.resolve(name, self);
        if found.and_then(|index| named.redirecting.get(index)).copied().unwrap_or(false) {
            let what = format!("= {:?} is a listener that redirects everything", name.value.0);
            self.faults.push(name.place.fault(what, "remove it here, or redirect_to_https there"));
        }
        name.value.0.clone()
    }

    fn host(&mut self, raw: &Given<String>) -> Option<HostPattern> {
        let host = raw.to_ascii_lowercase();
        let pattern = match host.strip_prefix('*') {
            Some(below) => below
                .strip_prefix('.')
                .filter(|base| is_host_name(base))
                .map(|_| HostPattern::Wildcard(below.to_owned())),
            None => is_host_or_ip(host.trim_matches(['[', ']'])).then(|| HostPattern::Exact(host.clone())),
        };
        if pattern.is_none() {
            let help = match host.rsplit_once(':') {
                _ if host == "*" => "leave host out: a route without one takes all",
                _ if !host.is_ascii() => "write it as sent, in its xn-- form",
                Some((_, port)) if port.parse::<u16>().is_ok() => "leave out the port",
                _ => "write \"shop.example\", or \"*.shop.example\" for all below it",
            };
            self.faults.push(raw.place.fault(format!("must be a host name, got {:?}", raw.value), help));
        }
        pattern
    }

    fn path(&mut self, raw: &Given<String>) -> Option<PathPattern> {
        if let Some(pattern) = raw.strip_prefix('~') {
            return match parse_regex(pattern.trim_start()) {
                Ok(regex) => Some(PathPattern::Regex(regex)),
                Err(refused) => {
                    self.faults.push(raw.place.fault(refused.what, refused.help));
                    None
                }
            };
        }
        if let Some(exact) = raw.strip_prefix('=') {
            let exact = Given { value: exact.trim_start().to_owned(), place: raw.place.clone(), written: true };
            return self.normal_path(&exact).map(|()| PathPattern::Exact(exact.value));
        }
        self.prefix(raw).map(PathPattern::Prefix)
    }

    /// A prefix on whole segments, kept without its trailing slash: "/" becomes "".
    pub(super) fn prefix(&mut self, raw: &Given<String>) -> Option<String> {
        self.normal_path(raw).map(|()| raw.strip_suffix('/').unwrap_or(raw).to_owned())
    }

    /// Reports a path that no request can have, since paths are normalised before they are compared.
    fn normal_path(&mut self, raw: &Given<String>) -> Option<()> {
        let path = raw.value.as_str();
        let is_path_byte = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
        let help = if !path.starts_with('/') {
            "begin it with \"/\""
        } else if path.contains(['?', '#']) {
            "leave out the query; use when = [{ query = … }]"
        } else if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            "paths are normalised first: leave out \"//\", \".\" and \"..\""
        } else if !path.bytes().all(is_path_byte) {
            "percent-encode what cannot stand in a path"
        } else if !path.split('%').skip(1).all(is_normal_escape) {
            "paths are normalised first: write %2F in capitals, and letters, digits, \"-\", \".\", \"_\" and \"~\" as they are"
        } else {
            return Some(());
        };
        self.faults.push(raw.place.fault(format!("cannot be {path:?}"), help));
        None
    }

    fn condition(&mut self, raw: &Given<RawCondition>) -> Option<Condition> {
        let subjects = [raw.header.is_absent(), raw.query.is_absent(), raw.cookie.is_absent(), raw.client.is_absent()];
        if subjects.iter().filter(|absent| !**absent).count() != 1 {
            self.faults.push(raw.place.fault("give exactly one of header, query, cookie and client", ""));
            return None;
        }
        let tests = [raw.equals.is_absent(), raw.matches.is_absent(), raw.present.is_absent()];
        let count = tests.iter().filter(|absent| !**absent).count();
        if !raw.client.is_absent() {
            if count > 0 {
                self.faults.push(raw.place.fault("client stands alone", "remove equals, matches and present"));
            }
            return Some(Condition::Client(items(&raw.client).iter().map(|network| network.value).collect()));
        }
        if count != 1 {
            let help = "present = true asks only whether it is there";
            self.faults.push(raw.place.fault("give exactly one of equals, matches and present", help));
            return None;
        }
        let equals = raw.equals.given().map(|text| Test::Equals(text.value.clone()));
        let matches = raw.matches.given().map(|regex| Test::Matches(regex.value.clone()));
        let test = equals.or(matches).or(raw.present.given().map(|present| Test::Present(present.value)))?;
        let header = raw.header.given().map(|name| Condition::Header(name.value.clone(), test.clone()));
        let query = raw.query.given().map(|name| Condition::Query(name.value.clone(), test.clone()));
        header.or(query).or(raw.cookie.given().map(|name| Condition::Cookie(name.value.clone(), test)))
    }

    /// The one thing the route does.
    fn action(&mut self, raw: &Given<RawRoute>, named: &mut Named) -> RouteAction {
        let actions = [raw.pool.is_absent(), raw.split.is_absent(), raw.redirect.is_absent(), raw.respond.is_absent()];
        if actions.iter().filter(|absent| !**absent).count() != 1 {
            self.faults.push(raw.place.fault("give exactly one of pool, split, redirect and respond", ""));
        }
        if let Some(redirect) = raw.redirect.given() {
            self.no_forwarding(raw);
            return self.redirect(redirect);
        }
        if let Some(respond) = raw.respond.given() {
            self.no_forwarding(raw);
            return self.respond(respond);
        }
        RouteAction::Forward(self.forward(raw, named))
    }

    fn redirect(&mut self, raw: &RawRedirect) -> RouteAction {
        let status = u16::try_from(raw.status.value.0).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            let what = format!("must be 301, 302, 303, 307 or 308, got {}", raw.status.value.0);
            self.faults.push(raw.status.place.fault(what, ""));
        }
        if let Some(to) = raw.to.given() {
            self.redirect_target(to);
        }
        RouteAction::Redirect {
            to: raw.to.given().map(|to| to.value.clone()).unwrap_or_default(),
            status: status.unwrap_or(StatusCode::PERMANENT_REDIRECT),
        }
    }

    fn redirect_target(&mut self, to: &Given<String>) {
        let is_uri_byte = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
        if to.is_empty() || !to.bytes().all(is_uri_byte) {
            let what = format!("must be a URL, got {:?}", to.value);
            self.faults.push(to.place.fault(what, "percent-encode what cannot stand in a URL"));
        }
        for piece in to.split('$').skip(1) {
            let end = piece.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(piece.len());
            let variable = piece.get(..end).unwrap_or_default();
            if !VARIABLES.contains(&variable) {
                let what = format!("has an unknown variable: \"${variable}\"");
                self.faults.push(to.place.fault(what, "use $uri (path and query), $path, $query, $host or $scheme"));
            }
        }
    }

    fn respond(&mut self, raw: &Given<RawRespond>) -> RouteAction {
        if let (Some(body), false) = (raw.body.given(), raw.body_file.is_absent()) {
            self.faults.push(body.place.fault("and body_file exclude each other", "remove one of them"));
        }
        let file = raw.body_file.given().map(|file| self.contents(file));
        let by_extension = file.as_ref().map_or(PLAIN_TEXT, |(path, _)| content_type(path)).to_owned();
        let content_type = raw.content_type.given().map_or(by_extension, |given| self.content_type(given));
        let text = raw.body.given().map(|body| body.value.clone().into_bytes());
        RouteAction::Respond {
            status: StatusCode::from_u16(raw.status.get()).unwrap_or_default(),
            body: text.or(file.map(|(_, contents)| contents)).unwrap_or_default(),
            content_type,
        }
    }

    fn request_edits(&mut self, raw: &RawRequestEdits) -> RequestEdits {
        RequestEdits {
            strip_prefix: raw.strip_prefix.given().and_then(|prefix| self.prefix(prefix)),
            rewrite: raw.rewrite.given().and_then(|rewrite| self.path_rewrite(rewrite)),
            add_prefix: raw.add_prefix.given().and_then(|prefix| self.prefix(prefix)),
            fields: self.field_edits(&raw.set, &raw.remove, Message::Request),
        }
    }

    fn path_rewrite(&mut self, raw: &RawPathRewrite) -> Option<(regex::Regex, String)> {
        let (from, to) = (raw.from.given()?, raw.to.given()?);
        for group in groups(to) {
            let known = match group.parse::<usize>() {
                Ok(number) => number < from.captures_len(),
                Err(_) => from.capture_names().flatten().any(|name| name == group),
            };
            if !known {
                let what = format!("refers to a group that from does not have: \"${group}\"");
                self.faults.push(to.place.fault(what, "write ${1} where letters follow, and $$ for a dollar sign"));
            }
        }
        Some((from.value.clone(), to.value.clone()))
    }
}

/// True when `after` begins with the two digits of a percent-encoding in normal form: capitals, and not of a character
/// that needs none (RFC 3986 §6.2.2).
fn is_normal_escape(after: &str) -> bool {
    let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte))
}

/// The groups that a replacement refers to, as the `regex` crate reads it: the longest run of letters, digits and `_`.
fn groups(replacement: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(escaped) = after.strip_prefix('$') {
            rest = escaped;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        found.extend(braced.or(after.get(..end)).filter(|name| !name.is_empty()));
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{groups, is_normal_escape};

    #[test]
    fn escapes_in_normal_form_are_capital_and_needed() {
        for (after, expected) in [
            ("2F", true),
            ("C3rest", true),
            ("2f", false),
            ("41", false),
            ("7E", false),
            ("4", false),
            ("", false),
            ("zz", false),
        ] {
            assert_eq!(is_normal_escape(after), expected, "{after}");
        }
    }

    #[test]
    fn groups_are_found_as_the_regex_crate_reads_them() {
        for (replacement, expected) in [
            ("/new/$1", vec!["1"]),
            ("/${1}a/$b_c/", vec!["1", "b_c"]),
            ("$$1", vec![]),
            ("$1a", vec!["1a"]),
            ("$", vec![]),
        ] {
            assert_eq!(groups(replacement), expected, "{replacement}");
        }
    }
}
