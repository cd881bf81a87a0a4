//! [`Config`] + the previous snapshot → the next one. Everything that can fail fails here, before anything is published.
//!
//! A compiler, not a constructor: faults are collected and shown where the operator wrote what is wrong. What the
//! previous snapshot has and the next one still wants is taken over: endpoints with their health and counters, cache
//! shares, compiled rules with the time they came into force, an access log whose target stayed. Endpoints that pools have
//! discovered are found in `Findings`, whichever generation asked for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::HeaderValue;

use super::{
    Action, CachePolicy, DictionaryPolicy, ErrorBody, Forwarding, Listener, RedirectToHttps, Rewrite, Route, Snapshot,
};
use crate::clock::{Clock, Now};
use crate::config::model::{
    self, Config, ListenerConfig, PoolConfig, RewriteConfig, RouteAction, RouteConfig, TlsConfig,
};
use crate::config::{Diagnostic, Diagnostics};
use crate::listener::tls::{
    CertificateSpec, ClientAuth, ServerTls, TicketKeys, TlsPlace, TlsProblem, TlsSpec as ServerSpec,
};
use crate::listener::{Limits, Settings, Timeouts};
use crate::observe::format::{FIELDS, Field, Format, Part};
use crate::observe::writer::Target;
use crate::policy::dictionary::Family;
use crate::policy::filter::Filter;
use crate::policy::optimise::Recipe;
use crate::policy::route::RouteTable;
use crate::store::Store;
use crate::transform::html::RuleSet;
use crate::upstream::{ClientTls, Farm, Findings, Pool, TlsSpec as ClientSpec};

/// What a snapshot needs besides its configuration; the same for every generation.
pub struct Parts {
    /// Where cache shares live.
    pub store: Store,
    /// What session tickets are sealed with.
    pub tickets: Arc<TicketKeys>,
    /// What pools share.
    pub farm: Arc<Farm>,
    /// What pools have discovered.
    pub findings: Arc<Findings>,
    /// Makes, or finds in `state_dir`, a self-signed certificate for these names: chain and key as PEM.
    pub self_signed: SelfSigned,
}

/// See [`Parts::self_signed`].
pub type SelfSigned = Box<dyn Fn(&[String]) -> io::Result<(Vec<u8>, Vec<u8>)> + Send>;

/// Builds the snapshot that follows `previous`.
///
/// # Errors
/// Every fault that only shows when things are put together: certificates, keys, authorities, selectors.
pub fn build(
    config: Arc<Config>,
    previous: Option<&Snapshot>,
    parts: &Parts,
    clock: &Clock,
) -> Result<Snapshot, Diagnostics> {
    let now = clock.now();
    let mut faults = Diagnostics::default();
    let listeners: Vec<_> =
        config.listeners.iter().filter_map(|listener| build_listener(listener, parts, clock, &mut faults)).collect();
    let pools: Vec<_> = config.pools.iter().filter_map(|pool| build_pool(pool, previous, parts, &mut faults)).collect();
    let rewrites: Vec<_> =
        config.rewrites.iter().filter_map(|rewrite| build_rewrite(rewrite, previous, now, &mut faults)).collect();
    let access_log = build_access_log(&config, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let caches: Vec<_> = config
        .caches
        .iter()
        .map(|cache| {
            let share = parts.store.share(&cache.name, cache.max_bytes);
            Arc::new(CachePolicy { name: cache.name.as_str().into(), params: cache.params.clone(), share })
        })
        .collect();
    let compressions: Vec<_> = config.compressions.iter().map(|compress| Arc::new(compress.params.clone())).collect();
    let dictionaries: Vec<_> = rewrites.iter().map(|rewrite| build_dictionaries(rewrite, &parts.store)).collect();
    let policies = Policies {
        pools: &pools,
        caches: &caches,
        rewrites: &rewrites,
        dictionaries: &dictionaries,
        compressions: &compressions,
    };
    let mut routes: Vec<_> = config.routes.iter().map(|route| build_route(route, &policies, previous)).collect();
    let heeds_integrity = routes.iter().any(|route| route.recipe.optimisers.heed_integrity());
    let session_cookies: Arc<[String]> = pools.iter().filter_map(|pool| pool.cookie().map(str::to_owned)).collect();
    for route in &mut routes {
        route.heeds_integrity = heeds_integrity;
        route.session_cookies = Arc::clone(&session_cookies);
    }
    let table = Arc::new(RouteTable::build(config.routes.iter().map(|route| route.matching.clone()).collect()));
    Ok(Snapshot {
        generation: previous.map_or(0, |previous| previous.generation) + 1,
        errors: build_errors(&config),
        warnings: nameless_certificates(&config, &listeners),
        config,
        table,
        routes: routes.into_iter().map(Arc::new).collect(),
        pools,
        listeners,
        caches,
        rewrites,
        access_log,
    })
}

fn build_listener(config: &ListenerConfig, parts: &Parts, clock: &Clock, faults: &mut Diagnostics) -> Option<Listener> {
    let tls = match &config.tls {
        Some(tls) => Some(Arc::new(build_server_tls(config, tls, parts, clock, faults)?)),
        None => None,
    };
    let timeouts = &config.timeouts;
    let limits = &config.limits;
    let settings = Settings {
        name: config.name.as_str().into(),
        h2: config.h2,
        http1: config.http1,
        proxy_protocol: config.proxy_protocol.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        timeouts: Timeouts {
            handshake: timeouts.handshake,
            headers: timeouts.headers,
            body: timeouts.body,
            write: timeouts.write,
            idle: timeouts.idle,
        },
        limits: Limits {
            header_bytes: limits.header_bytes,
            headers: limits.headers,
            uri: limits.uri,
            streams: limits.streams,
            connections_per_client: limits.connections_per_client,
        },
        tls,
    };
    let redirect = config.redirect_to_https.as_ref().map(|redirect| match redirect {
        model::RedirectToHttps::Port(port) => RedirectToHttps::Port(*port),
        model::RedirectToHttps::Base(base) => RedirectToHttps::Base(base.clone()),
    });
    Some(Listener { address: config.address, settings: Arc::new(settings), redirect })
}

/// The TLS side of a listener, or every fault of its certificates where they are named.
fn build_server_tls(
    listener: &ListenerConfig,
    tls: &TlsConfig,
    parts: &Parts,
    clock: &Clock,
    faults: &mut Diagnostics,
) -> Option<ServerTls> {
    let mut certificates: Vec<_> = tls
        .certificates
        .iter()
        .map(|pair| CertificateSpec {
            cert_pem: pair.cert_pem.clone(),
            key_pem: pair.key_pem.clone(),
            label: pair.cert.display().to_string(),
        })
        .collect();
    if !tls.self_signed.is_empty() {
        match (parts.self_signed)(&tls.self_signed) {
            Ok((cert_pem, key_pem)) => {
                certificates.push(CertificateSpec { cert_pem, key_pem, label: "self-signed".to_owned() });
            }
            Err(error) => {
                let message = format!("listener \"{}\": no self-signed certificate: {error}", listener.name);
                faults.push(Diagnostic::at(&tls.at, message, "is server.state_dir writable?"));
                return None;
            }
        }
    }
    let spec = ServerSpec {
        certificates,
        h2: listener.h2,
        http1: listener.http1,
        tls13_only: tls.tls13_only,
        strict_sni: tls.strict_sni,
        client_auth: tls
            .client_auth
            .as_ref()
            .map(|auth| ClientAuth { ca_pem: auth.ca_pem.clone(), required: auth.required }),
    };
    let found = match ServerTls::build(&spec, &parts.tickets, clock) {
        Ok(built) => return Some(built),
        Err(found) => found,
    };
    for fault in found {
        let pair = |index: usize| tls.certificates.get(index);
        let (at, what) = match fault.place {
            TlsPlace::Certificate(index) => (pair(index).map(|pair| &pair.at), "certificate"),
            TlsPlace::Key(index) => (pair(index).map(|pair| &pair.key_at), "key"),
            TlsPlace::ClientCa => (tls.client_auth.as_ref().map(|auth| &auth.at), "client_auth.ca"),
            TlsPlace::Table => (None, "tls"),
        };
        let message = format!("listener \"{}\": {what} {}", listener.name, fault.problem);
        faults.push(Diagnostic::at(at.unwrap_or(&tls.at), message, help(&fault.problem)));
    }
    None
}

/// A warning for each certificate that only says by its common name whom it is for.
fn nameless_certificates(config: &Config, listeners: &[Listener]) -> Diagnostics {
    let mut warnings = Diagnostics::default();
    for (configured, built) in config.listeners.iter().zip(listeners) {
        let (Some(tls), Some(loaded)) = (&configured.tls, &built.settings.tls) else { continue };
        for (pair, status) in tls.certificates.iter().zip(loaded.certificates()) {
            if status.names.is_empty() {
                let message = format!("listener \"{}\": certificate stands for no name", configured.name);
                let help = "clients do not look at the common name: have it issued with subject alternative names";
                warnings.push(Diagnostic::warning(&pair.at, message, help));
            }
        }
    }
    warnings
}

fn help(problem: &TlsProblem) -> &'static str {
    match problem {
        TlsProblem::KeyMismatch => "name the key that was made with this certificate",
        TlsProblem::Expired(_) => "renew the certificate; the running configuration goes on with the old one",
        TlsProblem::NotYetValid(_) => "check the clock of this machine",
        TlsProblem::Unreadable(_) | TlsProblem::Empty => "expected PEM text as made by openssl or an ACME client",
    }
}

fn build_pool(
    config: &PoolConfig,
    previous: Option<&Snapshot>,
    parts: &Parts,
    faults: &mut Diagnostics,
) -> Option<Arc<Pool>> {
    let previous = previous.and_then(|previous| {
        previous.pools.iter().find(|pool| pool.params.name == config.params.name).map(Arc::as_ref)
    });
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let client = tls.client.as_ref().map(|pair| (pair.cert_pem.clone(), pair.key_pem.clone()));
            let spec = ClientSpec {
                server_name: tls.server_name.clone(),
                ca_pem: tls.ca_pem.clone(),
                client,
                insecure: tls.insecure,
                protocol: config.params.protocol,
            };
            if tls.insecure {
                tracing::warn!(pool = config.params.name, "insecure = true: origin certificates are not verified");
            }
            match ClientTls::build(spec) {
                Ok(built) => Some(Arc::new(built)),
                Err(fault) => {
                    let message = format!("pool \"{}\": {fault}", config.params.name);
                    faults.push(Diagnostic::at(&tls.at, message, ""));
                    return None;
                }
            }
        }
    };
    let params = parts.findings.merge(config.params.clone());
    Some(Arc::new(Pool::build(params, tls, previous, &parts.farm)))
}

fn build_rewrite(
    config: &RewriteConfig,
    previous: Option<&Snapshot>,
    now: Now,
    faults: &mut Diagnostics,
) -> Option<Arc<Rewrite>> {
    let fingerprint = config.params.fingerprint();
    let running = previous.and_then(|previous| {
        previous.rewrites.iter().find(|running| *running.name == *config.name && running.fingerprint == fingerprint)
    });
    if let Some(running) = running.filter(|running| running.params == config.params) {
        return Some(Arc::clone(running));
    }
    match RuleSet::compile(&config.params) {
        Ok(rules) => {
            // HTTP dates have whole seconds.
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.unix_seconds());
            // The same bytes by another `on_error` or beside other optimisers.
            let since = running.map_or(now, |running| running.since);
            let (name, params) = (config.name.as_str().into(), config.params.clone());
            Some(Arc::new(Rewrite { name, params, rules, fingerprint, since }))
        }
        Err(fault) => {
            let at = config.elements_at.get(fault.index).cloned().unwrap_or_default();
            faults.push(Diagnostic::at(&at, format!("rewrite \"{}\": {fault}", config.name), ""));
            None
        }
    }
}

/// Where access records go and how they look.
fn build_access_log(config: &Config, faults: &mut Diagnostics) -> Option<(Target, Format)> {
    let wanted = config.log.access.as_ref()?;
    let target = match &wanted.to {
        model::LogTarget::Stdout => Target::Stdout,
        model::LogTarget::Stderr => Target::Stderr,
        model::LogTarget::File(path) => Target::File(path.clone()),
    };
    match access_format(&wanted.format) {
        Ok(format) => Some((target, format)),
        Err(unknown) => {
            let message = format!("log.access.format: there is no field \"{unknown}\"");
            let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
            faults.push(Diagnostic::at(
                &wanted.at,
                message,
                format!("one of {}, req.NAME, res.NAME", names.join(", ")),
            ));
            None
        }
    }
}

/// The format, or the name of a field that does not exist.
fn access_format(format: &model::AccessFormat) -> Result<Format, &str> {
    let parts = match format {
        model::AccessFormat::Json => return Ok(Format::Json),
        model::AccessFormat::Combined => return Ok(Format::Combined),
        model::AccessFormat::Template(parts) => parts,
    };
    let parts = parts.iter().map(|part| match part {
        model::TemplatePart::Text(text) => Ok(Part::Text(text.clone())),
        model::TemplatePart::Field(name) => Field::parse(name).map(Part::Field).ok_or(name.as_str()),
    });
    parts.collect::<Result<_, _>>().map(Format::Template)
}

/// The policies a route can name, by index.
struct Policies<'a> {
    pools: &'a [Arc<Pool>],
    caches: &'a [Arc<CachePolicy>],
    rewrites: &'a [Arc<Rewrite>],
    dictionaries: &'a [Option<Arc<DictionaryPolicy>>],
    compressions: &'a [Arc<crate::policy::encoding::CompressParams>],
}

/// What a rewrite policy keeps to code against; `None` where it is off.
fn build_dictionaries(rewrite: &Rewrite, store: &Store) -> Option<Arc<DictionaryPolicy>> {
    let params = &rewrite.params;
    let on = params.filters.contains(Filter::Dict);
    let shelf = on.then(|| store.dictionaries(&rewrite.name))?;
    Some(Arc::new(DictionaryPolicy { params: params.dictionaries.clone(), shelf }))
}

fn build_route(route: &RouteConfig, policies: &Policies<'_>, previous: Option<&Snapshot>) -> Route {
    let matching = &route.matching;
    let action = match &route.action {
        RouteAction::Forward(forward) => {
            let before = previous.and_then(|previous| previous.routes.iter().find(|old| *old.name == *matching.name));
            let before = before.and_then(|before| before.forwarding());
            Action::Forward(Box::new(Forwarding::build(forward, policies.pools, before)))
        }
        RouteAction::Redirect { to, status } => Action::Redirect(to.clone(), *status),
        RouteAction::Respond { status, body, content_type } => {
            Action::Respond(*status, Bytes::copy_from_slice(body), content_type_value(content_type))
        }
    };
    let rewrite = route.rewrite.and_then(|index| policies.rewrites.get(index));
    let dictionaries = route.rewrite.and_then(|index| policies.dictionaries.get(index)?.as_ref());
    let dictionaries = dictionaries.filter(|_| route.cache.is_some() && !Family::is_barred_by(&route.response.set));
    let compress = route.compress.and_then(|index| policies.compressions.get(index)).cloned();
    let filters = rewrite.map(|rewrite| rewrite.params.filters).unwrap_or_default();
    let recipe = Recipe {
        // The fields that are set on the way out are not on what is stored.
        optimisers: filters.optimisers().under(&route.response.set),
        strong: compress.as_ref().is_some_and(|compress| compress.strong),
    };
    Route {
        name: matching.name.as_str().into(),
        action,
        cache: route.cache.and_then(|index| policies.caches.get(index)).cloned(),
        rewrite: rewrite.filter(|rewrite| !rewrite.rules.is_empty()).cloned(),
        compress,
        recipe,
        dictionaries: dictionaries.cloned(),
        filters,
        debug_key: rewrite
            .and_then(|rewrite| rewrite.params.debug_key.as_ref())
            .map(|key| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))),
        heeds_integrity: false,
        session_cookies: Arc::default(),
        request: route.request.clone(),
        response: route.response.clone(),
        in_key: !matching.methods.is_empty() || !matching.when.is_empty() || matching.listeners.is_some(),
    }
}

fn build_errors(config: &Config) -> BTreeMap<u16, ErrorBody> {
    let body = |page: &model::ErrorPage| ErrorBody {
        body: Bytes::copy_from_slice(&page.body),
        content_type: content_type_value(&page.content_type),
    };
    config.errors.iter().map(|(&status, page)| (status, body(page))).collect()
}

/// Validation has checked it; what is no field value all the same is served as bytes.
fn content_type_value(content_type: &str) -> HeaderValue {
    HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}
