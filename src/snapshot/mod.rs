//! The running configuration: [`Config`] + the previous [`Snapshot`] → the next one, swapped in as a whole.
//!
//! A snapshot is immutable and shared by all workers; an exchange decides by exactly one of them. What must outlive a
//! reload (endpoint health, cache shares, ticket keys, compiled rules that did not change) is taken over from the
//! previous snapshot while the next is built. [`Current`] is the one `ArcSwap` of the process.

pub mod build;
pub mod endpoint_files;
pub mod files;
mod forwarding;
pub mod reload;
pub mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::watch as generation;

use crate::config::Diagnostics;
use crate::config::model::Config;
use crate::listener::Settings;
use crate::observe::{Format, Target};
use crate::policy::cache::key::{Location, Seeds};
use crate::policy::cache::purge;
use crate::policy::cache::{CacheParams, KeyParams};
use crate::policy::dictionary::DictionaryParams;
use crate::policy::encoding::CompressParams;
use crate::policy::fields::FieldEdits;
use crate::policy::filter::Filters;
use crate::policy::optimise::Recipe;
use crate::policy::rewrite::RewriteParams;
use crate::policy::route::{RequestEdits, RouteTable};
use crate::policy::uri::NormalUri;
use crate::store::{Dictionaries, Purge, Share};
use crate::transform::html::RuleSet;
use crate::upstream::{Findings, Pool};

pub use forwarding::{Destination, Forwarding, Mirror, MirrorGuard};

/// Everything an exchange decides by.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts published snapshots from 1.
    pub generation: u64,
    /// What it was built from; for `status`, `check` and the next build.
    pub config: Arc<Config>,
    /// Picks an index into `routes`.
    pub table: Arc<RouteTable>,
    /// `[[route]]` in file order.
    pub routes: Vec<Arc<Route>>,
    /// `[[pool]]` in file order.
    pub pools: Vec<Arc<Pool>>,
    /// `[[listener]]` in file order.
    pub listeners: Vec<Listener>,
    /// `[cache.NAME]` in file order.
    pub caches: Vec<Arc<CachePolicy>>,
    /// `[rewrite.NAME]` in file order; kept so that unchanged rules keep the time they came into force.
    pub rewrites: Vec<Arc<Rewrite>>,
    /// `log.access`; `None` = off.
    pub access_log: Option<(Target, Format)>,
    /// `[errors]`
    pub errors: BTreeMap<u16, ErrorBody>,
    /// What showed when things were put together and stops nothing.
    pub warnings: Diagnostics,
}

impl Snapshot {
    /// The snapshot that follows when other endpoints are known than it has; `None` = they are the same. Everything else
    /// is as it was: nothing here can fail.
    #[must_use]
    pub fn with_endpoints(&self, findings: &Findings) -> Option<Self> {
        let mut changed = false;
        let mut next = |pool: &Arc<Pool>| {
            let params = findings.merge(pool.params.clone());
            if params.endpoints == pool.params.endpoints {
                return Arc::clone(pool);
            }
            changed = true;
            Arc::new(Pool::build(params, pool.tls.clone(), Some(pool), pool.farm()))
        };
        let pools: Vec<_> = self.pools.iter().map(&mut next).collect();
        if !changed {
            return None;
        }
        let routes = self.routes.iter().map(|route| match &route.action {
            Action::Forward(forwarding) => {
                let newest = |pool: &Arc<Pool>| pools.iter().find(|next| next.id == pool.id).unwrap_or(pool).clone();
                let action = Action::Forward(Box::new(forwarding.with_pools(newest)));
                Arc::new(Route { action, ..Route::clone(route) })
            }
            Action::Redirect(..) | Action::Respond(..) => Arc::clone(route),
        });
        Some(Self {
            generation: self.generation + 1,
            config: Arc::clone(&self.config),
            table: Arc::clone(&self.table),
            routes: routes.collect(),
            pools,
            listeners: self.listeners.clone(),
            caches: self.caches.clone(),
            rewrites: self.rewrites.clone(),
            access_log: self.access_log.clone(),
            errors: self.errors.clone(),
            warnings: Diagnostics::default(),
        })
    }

    /// A purge of `target`, of what `policies` keep; `None` = of whatever is kept, by policies that are gone as well.
    #[must_use]
    pub fn purge(
        &self,
        target: purge::Target,
        soft: bool,
        policies: Option<&[Arc<CachePolicy>]>,
        seeds: &Seeds,
    ) -> Purge {
        let urls = match &target {
            purge::Target::Url { host, uri } => self.locations(host, uri, seeds),
            _ => Vec::new(),
        };
        let policies = policies.map(|policies| policies.iter().map(|policy| Arc::clone(&policy.name)).collect());
        Purge { target, urls, policies, soft }
    }

    /// What the cache policies make of one URL: they differ in the parts of a query they leave out.
    #[must_use]
    pub fn locations(&self, host: &str, uri: &NormalUri, seeds: &Seeds) -> Vec<Location> {
        let plain = KeyParams::default();
        let keys = self.caches.iter().map(|policy| &policy.params.key).chain([&plain]);
        let mut urls: Vec<_> = keys.map(|params| Location::new(host, uri.path(), uri.query(), params, seeds)).collect();
        urls.sort_unstable();
        urls.dedup();
        urls
    }
}

/// One `[[listener]]` at run time.
#[derive(Debug, Clone)]
pub struct Listener {
    /// `address` as configured; port 0 until bound.
    pub address: SocketAddr,
    /// What its connections are driven by.
    pub settings: Arc<Settings>,
    /// `redirect_to_https`
    pub redirect: Option<RedirectToHttps>,
}

/// `redirect_to_https`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectToHttps {
    /// The same host on this port.
    Port(u16),
    /// This base URL, without a trailing slash.
    Base(String),
}

/// One `[[route]]` at run time.
#[derive(Debug, Clone)]
pub struct Route {
    /// `name`
    pub name: Arc<str>,
    /// What it does.
    pub action: Action,
    /// `cache`
    pub cache: Option<Arc<CachePolicy>>,
    /// `rewrite`; `None` also when the policy has no rules.
    pub rewrite: Option<Arc<Rewrite>>,
    /// `compress`
    pub compress: Option<Arc<CompressParams>>,
    /// What is made of stored bodies off the request path.
    pub recipe: Recipe,
    /// What the rewrite policy has switched on.
    pub filters: Filters,
    /// What orders to switch filters off are signed with; `None` = nobody may.
    pub debug_key: Option<Arc<hmac::Key>>,
    /// Earlier versions of files that later ones are coded against; `None` = off, or nothing is stored.
    pub dictionaries: Option<Arc<DictionaryPolicy>>,
    /// Some route alters scripts or style sheets, so that pages of every route are searched for the digests of those that
    /// must stay as they are.
    pub heeds_integrity: bool,
    /// The cookies of all sticky pools, which are ours and no origin's.
    pub session_cookies: Arc<[String]>,
    /// `request`
    pub request: RequestEdits,
    /// `response`
    pub response: FieldEdits,
    /// True when the route matches on more than host and path, so that its name belongs into the cache key.
    pub in_key: bool,
}

impl Route {
    /// How it forwards, if it does.
    #[must_use]
    pub fn forwarding(&self) -> Option<&Forwarding> {
        match &self.action {
            Action::Forward(forwarding) => Some(forwarding),
            Action::Redirect(..) | Action::Respond(..) => None,
        }
    }
}

/// What a route does with what it matches.
#[derive(Debug, Clone)]
pub enum Action {
    /// `pool` or `split`
    Forward(Box<Forwarding>),
    /// `redirect`: the template and the status.
    Redirect(String, StatusCode),
    /// `respond`: status, body and its type.
    Respond(StatusCode, Bytes, HeaderValue),
}

/// One `[cache.NAME]` at run time.
#[derive(Debug)]
pub struct CachePolicy {
    /// NAME
    pub name: Arc<str>,
    /// What it decides by.
    pub params: CacheParams,
    /// Its part of the store; survives reloads by name.
    pub share: Arc<Share>,
}

/// The mandatory rules of one `[rewrite.NAME]` at run time.
#[derive(Debug)]
pub struct Rewrite {
    /// NAME
    pub name: Arc<str>,
    /// What applies to which response.
    pub params: RewriteParams,
    /// Selectors parsed once.
    pub rules: RuleSet,
    /// Names the rules in entity tags and stored responses.
    pub fingerprint: u64,
    /// When these rules came into force, in whole seconds: a rewritten body is no older than its rules.
    pub since: SystemTime,
}

/// `dict` of one `[rewrite.NAME]` at run time.
#[derive(Debug)]
pub struct DictionaryPolicy {
    /// What it decides by.
    pub params: DictionaryParams,
    /// What it keeps; survives reloads by name.
    pub shelf: Arc<Dictionaries>,
}

/// A body for local replies of one status.
#[derive(Debug, Clone)]
pub struct ErrorBody {
    /// The bytes.
    pub body: Bytes,
    /// `Content-Type`
    pub content_type: HeaderValue,
}

/// The one place where the running snapshot is kept, and the bell that rings when it changes.
#[derive(Debug)]
pub struct Current {
    snapshot: ArcSwap<Snapshot>,
    published: generation::Sender<u64>,
}

impl Current {
    /// Starts with the first snapshot.
    #[must_use]
    pub fn new(first: Arc<Snapshot>) -> Self {
        let (published, _) = generation::channel(first.generation);
        Self { snapshot: ArcSwap::new(first), published }
    }

    /// Swaps the whole snapshot and wakes every worker, so that an idle one follows too.
    pub fn publish(&self, next: Arc<Snapshot>) {
        let generation = next.generation;
        self.snapshot.store(next);
        self.published.send_replace(generation);
    }

    /// The running snapshot. Cost: one atomic increment on a shared line; workers read through [`Self::swap`] instead.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The swap itself, for a worker's `arc_swap::cache::Cache`.
    #[must_use]
    pub fn swap(&self) -> &ArcSwap<Snapshot> {
        &self.snapshot
    }

    /// Follows the generations.
    #[must_use]
    pub fn subscribe(&self) -> generation::Receiver<u64> {
        self.published.subscribe()
    }
}
