//! Keys → [`Config`]: what goes together, what refers to what, what the named files hold.
//!
//! One file per section. A check that fails is reported and a stand-in is used from there on; the result is only handed
//! out when nothing was reported.

mod cache;
mod compress;
pub(super) mod discover;
mod fields;
mod forward;
mod listener;
mod names;
mod page;
mod pool;
mod rewrite;
mod route;
mod server;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::diagnostics::{Diagnostic, Diagnostics};
use super::files::Files;
use super::model::Config;
use super::raw::RawRoot;
use super::shape::Given;
use super::source::Location;
use names::Names;

/// Bytes of a file that the configuration names: a page, a certificate, a token.
const MAX_NAMED_FILE_BYTES: usize = 16 * 1024 * 1024;

/// What the checks share.
pub(super) struct Validation<'a> {
    /// Where named files are read.
    pub(super) files: &'a dyn Files,
    /// What was found.
    pub(super) faults: Diagnostics,
    /// Every file that is named.
    pub(super) watched: BTreeSet<PathBuf>,
    /// False when a file could not be read: a name that nothing defines may be defined there.
    pub(super) complete: bool,
}

/// What routes can refer to.
struct Named {
    listeners: Names,
    /// Which of `listeners` redirect everything.
    redirecting: Vec<bool>,
    pools: Names,
    caches: Names,
    rewrites: Names,
    compressions: Names,
}

impl Validation<'_> {
    /// The whole; `main` is where the main file stands.
    pub(super) fn root(&mut self, raw: &RawRoot, main: &Location) -> Config {
        let store = server::store(&raw.store);
        let listeners = items(&raw.listener);
        let pools = items(&raw.pool);
        let mut named = Named {
            listeners: Names::of("listener", listeners.iter().map(|raw| raw.name.given().map(given_name)), self),
            redirecting: listeners.iter().map(|raw| !raw.redirect_to_https.is_absent()).collect(),
            pools: Names::of("pool", pools.iter().map(|raw| raw.name.given().map(given_name)), self),
            caches: Names::of_map("cache", &raw.cache, self),
            rewrites: Names::of_map("rewrite", &raw.rewrite, self),
            compressions: Names::of_map("compress", &raw.compress, self),
        };
        let config = Config {
            server: self.server(&raw.server),
            admin: self.admin(&raw.admin),
            log: self.log(&raw.log),
            demo: raw.demo.given().map(|demo| server::demo(demo)),
            errors: self.error_pages(&raw.errors),
            listeners: listeners.iter().map(|listener| self.listener(listener)).collect(),
            pools: pools.iter().map(|pool| self.pool(pool)).collect(),
            caches: map(&raw.cache, |name, cache| self.cache(name, cache, store.size)),
            rewrites: map(&raw.rewrite, |name, rewrite| self.rewrite(name, rewrite)),
            compressions: map(&raw.compress, |name, compress| self.compress(name, compress)),
            routes: items(&raw.route).iter().enumerate().map(|(i, route)| self.route(i, route, &mut named)).collect(),
            store,
        };
        self.unique_route_names(items(&raw.route));
        self.reachable_routes(items(&raw.route), &config.routes);
        self.addresses(raw, &config);
        self.includes(items(&raw.include));
        self.unused(&named, &config, main);
        config
    }

    /// Warns about patterns that match no file; that they are patterns was seen when the files were read.
    fn includes(&mut self, patterns: &[Given<String>]) {
        for pattern in patterns {
            let path = pattern.place.at.resolve(pattern);
            if self.files.glob(&path.to_string_lossy()).is_ok_and(|found| found.is_empty()) {
                self.faults.push(pattern.place.warning(format!("= {:?} names no file", pattern.value), ""));
            }
        }
    }

    /// Warns about what nothing uses, and about a configuration that serves nothing.
    fn unused(&mut self, named: &Named, config: &Config, main: &Location) {
        if !self.complete {
            return;
        }
        if config.listeners.is_empty() {
            let help = "add a [[listener]] with a name and an address";
            self.faults.push(Diagnostic::at(main, "there is no listener", help));
        } else if config.routes.is_empty() && config.listeners.iter().any(|l| l.redirect_to_https.is_none()) {
            let help = "add a [[route]] with a pool";
            self.faults.push(Diagnostic::warning(main, "there is no route: every request gets 404", help));
        }
        for names in [&named.pools, &named.caches, &named.rewrites, &named.compressions] {
            names.warn_unused(&mut self.faults);
        }
    }

    /// Path and contents of a file that a key names; empty contents when it cannot be read, which is reported.
    fn contents(&mut self, file: &Given<String>) -> (PathBuf, Vec<u8>) {
        let path = file.place.at.resolve(file);
        self.watched.insert(path.clone());
        let contents = match self.files.read(&path) {
            Ok(contents) if contents.len() <= MAX_NAMED_FILE_BYTES => contents,
            Ok(_) => self.unreadable(file, &path, &format!("it has more than {MAX_NAMED_FILE_BYTES} bytes")),
            Err(error) => self.unreadable(file, &path, &error.to_string()),
        };
        (path, contents)
    }

    fn unreadable(&mut self, file: &Given<String>, path: &std::path::Path, reason: &str) -> Vec<u8> {
        self.faults.push(file.place.fault(format!("cannot be read: {}: {reason}", path.display()), ""));
        Vec::new()
    }
}

/// The items of a list that may be absent.
fn items<T, const MIN: usize>(list: &super::shape::Setting<super::shape::List<T, MIN>>) -> &[Given<T>] {
    list.given().map_or(&[], |list| &list.0)
}

/// Every named entry of a table that may be absent, validated.
fn map<T, V>(
    map: &super::shape::Setting<super::shape::Map<T>>,
    mut validate: impl FnMut(&str, &Given<T>) -> V,
) -> Vec<V> {
    map.given().map_or_else(Vec::new, |map| map.0.iter().map(|(name, entry)| validate(name, entry)).collect())
}

/// The name as plain text, with its place.
fn given_name(name: &Given<super::units::Name>) -> Given<String> {
    Given { value: name.value.0.clone(), place: name.place.clone(), written: true }
}
