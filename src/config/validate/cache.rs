//! `[cache.NAME]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Validation, items};
use crate::config::model::CacheConfig;
use crate::config::raw::{RawBypass, RawCache, RawKey, RawPurge};
use crate::config::shape::{Given, List};
use crate::config::units::show_size;
use crate::policy::cache::purge::PurgeParams;
use crate::policy::cache::{BypassRule, CacheParams, KeyParams};

impl Validation<'_> {
    /// One cache policy; `store` is the size it has a share of.
    pub(super) fn cache(&mut self, name: &str, raw: &Given<RawCache>, store: u64) -> CacheConfig {
        if let Some(max) = raw.max_bytes.given().filter(|max| max.0 > store) {
            let what = format!("= {} is more than the whole store ({})", show_size(max.0), show_size(store));
            self.faults.push(max.place.fault(what, "lower it, or raise size in [store]"));
        }
        // The default of max_object is no promise: it shrinks with the share.
        let share = raw.max_bytes.given().map_or(store, |max| max.0);
        if raw.max_object.0 > share && raw.max_object.written {
            let what = format!(
                "= {} is more than all the policy may keep ({})",
                show_size(raw.max_object.0),
                show_size(share)
            );
            self.faults.push(raw.max_object.place.fault(what, "lower it, or raise max_bytes"));
        }
        let params = CacheParams {
            max_object: raw.max_object.0.min(share),
            ttl: raw.ttl.nonzero(),
            status_ttl: self.status_ttl(raw),
            override_ttl: raw.override_ttl.nonzero(),
            stale_while_revalidate: raw.stale_while_revalidate.nonzero(),
            stale_if_error: raw.stale_if_error.nonzero(),
            stale_if_unreachable: raw.stale_if_unreachable.nonzero(),
            ignore_request_directives: raw.ignore_request_directives.value,
            key: self.key(&raw.key),
            strip_cookies: self.globs(&raw.strip_cookies),
            bypass: raw.bypass.0.iter().filter_map(|rule| self.bypass(rule)).collect(),
            fill_after_abort: raw.fill_after_abort.value,
            early_refresh: raw.early_refresh.value,
            deception_guard: raw.deception_guard.value,
            query_body: raw.query_body.given().map(|bound| bound.0),
            cache_status_key: raw.cache_status_key.value,
            tags: raw.tags.values().cloned().collect(),
            purge: raw.purge.given().and_then(|purge| self.purge(purge)),
        };
        CacheConfig { name: name.to_owned(), max_bytes: raw.max_bytes.given().map(|max| max.0), params }
    }

    fn status_ttl(&mut self, raw: &RawCache) -> BTreeMap<u16, Duration> {
        let mut ttls = BTreeMap::new();
        for (status, ttl) in raw.status_ttl.given().map_or(&[][..], |map| &map.0) {
            match status.parse::<u16>() {
                Ok(number) if (200..=599).contains(&number) && number != 304 && number != 206 => {
                    ttls.insert(number, ttl.0);
                }
                Ok(206 | 304) => {
                    self.faults.push(status.place.fault("is never stored under its own status", "remove it"))
                }
                _ => self.faults.push(status.place.fault("must be a status from 200 to 599", "")),
            }
        }
        ttls
    }

    fn key(&mut self, raw: &RawKey) -> KeyParams {
        KeyParams {
            ignore_query: self.globs(&raw.ignore_query),
            tracking: raw.tracking.value,
            sort_query: raw.sort_query.value,
            headers: raw.headers.values().cloned().collect(),
            cookies: raw.cookies.values().cloned().collect(),
        }
    }

    /// Never open to everybody: neither key is a fault, and what could not be read admits nobody.
    fn purge(&mut self, raw: &Given<RawPurge>) -> Option<PurgeParams> {
        if raw.allow.is_absent() && raw.token_file.is_absent() {
            let help = "write { allow = [\"127.0.0.0/8\"] }, or remove it";
            self.faults.push(raw.place.fault("give allow, token_file or both", help));
            return None;
        }
        let token = raw.token_file.given().and_then(|file| self.token(file));
        Some(PurgeParams { allow: items(&raw.allow).iter().map(|network| network.value).collect(), token })
    }

    /// Patterns with `*` for any letters.
    fn globs(&mut self, raw: &List<String>) -> Vec<String> {
        for glob in raw.0.iter().filter(|glob| glob.is_empty()) {
            self.faults.push(glob.place.fault("must not be empty", "\"*\" matches everything"));
        }
        raw.values().cloned().collect()
    }

    fn bypass(&mut self, raw: &Given<RawBypass>) -> Option<BypassRule> {
        let written = [raw.cookie.is_absent(), raw.path.is_absent(), raw.header.is_absent()];
        if written.iter().filter(|absent| !**absent).count() != 1 {
            self.faults.push(raw.place.fault("give exactly one of cookie, path and header", "write one rule for each"));
            return None;
        }
        let cookie = raw.cookie.given().map(|cookie| BypassRule::Cookie(cookie.value.clone()));
        let header = raw.header.given().map(|header| BypassRule::Header(header.value.clone()));
        let path = raw.path.given().and_then(|path| self.prefix(path)).map(BypassRule::Path);
        cookie.or(header).or(path)
    }
}
