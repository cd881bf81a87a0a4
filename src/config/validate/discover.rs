//! `discover` and `resolver` of a pool, and the files of a `discover.directory`.

use std::net::SocketAddr;
use std::path::Path;

use super::{Validation, items};
use crate::config::diagnostics::Diagnostics;
use crate::config::files::{Files, read_one};
use crate::config::raw::{RawDiscover, RawEndpoint, RawEndpoints, RawPool};
use crate::config::shape::{Given, Place, Shape};
use crate::config::source::Location;
use crate::config::tree;
use crate::config::units::is_host_name;
use crate::policy::discovery::{DiscoverParams, Source};
use crate::policy::pool::{Address, EndpointParams};

impl Validation<'_> {
    /// Endpoints are written or found.
    pub(super) fn somewhere(&mut self, raw: &Given<RawPool>) {
        if raw.endpoints.is_absent() && raw.discover.is_absent() {
            let help = "add endpoints = [{ address = \"…\" }], or discover = { dns = \"…\" }";
            self.faults.push(raw.place.fault("endpoints is missing", help));
        }
    }

    /// `dns` or `directory`.
    pub(super) fn discover(&mut self, raw: &Given<RawDiscover>) -> Option<DiscoverParams> {
        let source = match (raw.dns.given(), raw.directory.given()) {
            (Some(_), Some(directory)) => {
                self.faults.push(directory.place.fault("cannot stand beside dns", "remove one of them"));
                return None;
            }
            (Some(dns), None) => self.dns(dns)?,
            (None, Some(directory)) => {
                if raw.interval.written {
                    let what = "has no effect with directory: files are watched";
                    self.faults.push(raw.interval.place.fault(what, "remove it"));
                }
                let path = directory.place.at.resolve(directory);
                self.watched.insert(path.clone());
                Source::Directory(path)
            }
            (None, None) => {
                if raw.dns.is_absent() && raw.directory.is_absent() {
                    self.faults.push(raw.place.fault("needs dns or directory", "add dns = \"NAME:PORT\""));
                }
                return None;
            }
        };
        Some(DiscoverParams { source, interval: raw.interval.0, max: raw.max.get::<u32>() as usize })
    }

    /// `web.internal:8080`, or `_http._tcp.web.internal`.
    fn dns(&mut self, raw: &Given<String>) -> Option<Source> {
        let source = match raw.rsplit_once(':') {
            Some((name, port)) => {
                port.parse().ok().filter(|port| *port > 0).map(|port| Source::Addresses(name.into(), port))
            }
            None => raw.starts_with('_').then(|| Source::Services(raw.value.clone())),
        };
        let source = source.filter(|source| match source {
            Source::Addresses(name, _) | Source::Services(name) => is_host_name(name),
            Source::Directory(_) => false,
        });
        if source.is_none() {
            let what = format!("must be a name and a port, or a service, got {:?}", raw.value);
            let help = "write \"web.internal:8080\" or \"_http._tcp.web.internal\"";
            self.faults.push(raw.place.fault(what, help));
        }
        source
    }

    pub(super) fn resolver(&mut self, raw: &[Given<Address>]) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for given in raw {
            match &given.value {
                Address::Ip(address) => servers.push(*address),
                Address::Name(..) | Address::Unix(_) => {
                    let what = format!("must be an IP address and a port, got \"{}\"", given.value);
                    self.faults.push(given.place.fault(what, "a name would have to be resolved first"));
                }
            }
        }
        servers
    }
}

/// The endpoints of one file of a `discover.directory`: the one it is, or those of its list.
///
/// # Errors
/// Everything that is wrong with it.
pub(in crate::config) fn endpoint_file(path: &Path, files: &dyn Files) -> Result<Vec<EndpointParams>, Diagnostics> {
    let mut faults = Diagnostics::default();
    let read = |faults: &mut Diagnostics| {
        let at = read_one(path, 0, files, faults)?;
        // Who writes these files registers origins, and has no business with what is in our environment.
        let table = tree::parse(&at, &|_| None, faults)?;
        let is_list = table.get("endpoints").is_some();
        let node = tree::Node { at: at.clone(), value: tree::Value::Table(table) };
        let place = Place::root(&at);
        if is_list {
            return RawEndpoints::read(&node, &place, faults).map(|list| items(&list.endpoints).to_vec());
        }
        let value = RawEndpoint::read(&node, &place, faults)?;
        Some(vec![Given { value, place, written: true }])
    };
    let raw = read(&mut faults).unwrap_or_default();
    let mut validation = Validation { files, faults, watched: Default::default(), complete: true };
    let (mut endpoints, _): (_, Vec<Location>) = validation.endpoints(&raw);
    endpoints.iter_mut().for_each(|endpoint| endpoint.discovered = true);
    if validation.faults.is_empty() { Ok(endpoints) } else { Err(validation.faults) }
}
