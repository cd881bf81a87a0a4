//! DNS: the one place where names are asked for. Runs beside the workers, never on one.
//!
//! A resolver is made for each question: it reads the system's settings and hosts file as they are now, and keeps no
//! answer, as how long one is believed is for [`crate::policy::discovery`] to say. UDP first, TCP where an answer does
//! not fit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, Record};

use crate::policy::discovery::{Answer, Fault, Found, Source};

/// How long one question may take, with all that follows from it.
const QUESTION: Duration = Duration::from_secs(5);

/// How long one server has, before another one is asked.
/// Two in a row fit into a question: a service, and where its targets are.
const SERVER: Duration = Duration::from_secs(2);

/// Targets of a service that are followed; far more than anybody balances over, and few enough to ask for in one go.
const TARGETS: usize = 256;

/// Asks `servers`, or the system's where there are none, where the endpoints of `source` are.
///
/// # Errors
/// Why there is no answer; a directory is asked nobody for.
pub(super) async fn ask(source: &Source, servers: &[SocketAddr]) -> Result<Answer, Fault> {
    let asking = async {
        let resolver = resolver(servers)?;
        match source {
            Source::Addresses(name, port) => addresses(&resolver, name, *port).await,
            Source::Services(name) => services(&resolver, name).await,
            Source::Directory(_) => Err(Fault::Unreachable),
        }
    };
    tokio::time::timeout(QUESTION, asking).await.unwrap_or(Err(Fault::Timeout))
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, Fault> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|_| Fault::Unreachable)?
    } else {
        let mut options = ResolverOpts::default();
        // Whoever names a server wants its word.
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options)
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = options.timeout.min(SERVER);
    // It counts what comes after the first: a name and what it leads to have to fit into a question, and who asks asks again.
    options.attempts = 0;
    builder.build().map_err(|_| Fault::Unreachable)
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// Both families at once. One that has no records is no loss; one that could not be had is.
async fn addresses(resolver: &TokioResolver, name: &str, port: u16) -> Result<Answer, Fault> {
    let (four, six) = tokio::join!(resolver.ipv4_lookup(name), resolver.ipv6_lookup(name));
    let mut answer = Answer { found: Vec::new(), ttl: Duration::MAX, missing: None };
    let mut absent = Fault::NoSuchName;
    for half in [four, six] {
        match half {
            Ok(lookup) => {
                let ips = lookup.answers().iter().filter_map(ip);
                answer.found.extend(ips.map(|ip| Found { address: SocketAddr::new(ip, port), priority: 0, weight: 1 }));
                answer.ttl = answer.ttl.min(ttl(&lookup));
            }
            Err(error) => match fault(&error) {
                Fault::NoSuchName => {}
                Fault::Empty => absent = Fault::Empty,
                fault => answer.missing = Some(fault),
            },
        }
    }
    if answer.found.is_empty() { Err(answer.missing.unwrap_or(absent)) } else { Ok(answer) }
}

/// The targets, and then the addresses of each.
async fn services(resolver: &TokioResolver, name: &str) -> Result<Answer, Fault> {
    let lookup = resolver.srv_lookup(name).await.map_err(|error| fault(&error))?;
    let mut answer = Answer { found: Vec::new(), ttl: ttl(&lookup), missing: None };
    // "." says that the service is decidedly not available (RFC 2782).
    let targets = lookup.answers().iter().filter_map(target).filter(|target| !target.target.is_root());
    let asked = targets.take(TARGETS).map(async |target| {
        let found = addresses(resolver, &target.target.to_ascii(), target.port).await;
        (target.priority, target.weight, found)
    });
    for (priority, weight, found) in futures_util::future::join_all(asked).await {
        match found {
            Ok(part) => {
                answer.found.extend(part.found.into_iter().map(|one| Found { priority, weight, ..one }));
                answer.ttl = answer.ttl.min(part.ttl);
                answer.missing = answer.missing.or(part.missing);
            }
            // What a record points to and is not there has left; what could not be asked for may still be there.
            Err(fault) if fault.is_absence() => {}
            Err(fault) => answer.missing = Some(fault),
        }
    }
    if answer.found.is_empty() { Err(answer.missing.unwrap_or(Fault::Empty)) } else { Ok(answer) }
}

fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn target(record: &Record) -> Option<&SRV> {
    match &record.data {
        RData::SRV(service) => Some(service),
        _ => None,
    }
}

/// That of the record that runs out first, aliases included.
fn ttl(lookup: &Lookup) -> Duration {
    let seconds = lookup.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(seconds.unwrap_or_default().into())
}

fn fault(error: &NetError) -> Fault {
    match error {
        NetError::Timeout => Fault::Timeout,
        NetError::Dns(DnsError::ResponseCode(_)) => Fault::ServerFailure,
        error if error.is_nx_domain() => Fault::NoSuchName,
        error if error.is_no_records_found() => Fault::Empty,
        _ => Fault::Unreachable,
    }
}
