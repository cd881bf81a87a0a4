//! Certificates: read, checked, and chosen by the name the client asks for.
//!
//! A name is matched exactly, then by a wildcard for its first label (RFC 6125 §6.4.3), then falls to the first
//! certificate, unless `strict_sni` refuses it. Several certificates may cover one name with different key types: they
//! form a group, and ECDSA is shown to every client that can verify it. Names come from the subject alternative names
//! alone; a common name has not counted for years.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CertificateSpec, TlsFault, TlsPlace, TlsProblem};
use crate::clock::Now;

/// What operators want to know of a loaded certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Where it came from, as the configuration names it.
    pub label: String,
    /// DNS names and addresses it covers, lower-cased. Empty: only the common name says whom it is for, which clients
    /// do not accept any more (worth a warning).
    pub names: Vec<String>,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ends to be valid.
    pub not_after: SystemTime,
}

/// One certificate chain with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) status: CertificateStatus,
}

impl Certificate {
    /// Reads and checks one pair; `index` is its place in the configuration.
    pub(super) fn load(
        spec: &CertificateSpec,
        index: usize,
        provider: &CryptoProvider,
        now: Now,
    ) -> Result<Self, TlsFault> {
        let of_certificate = |problem| TlsFault { place: TlsPlace::Certificate(index), problem };
        let of_key = |problem| TlsFault { place: TlsPlace::Key(index), problem };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&spec.cert_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| of_certificate(TlsProblem::Unreadable(error.to_string())))?;
        let leaf = chain.first().ok_or_else(|| of_certificate(TlsProblem::Empty))?;
        let status = read_status(leaf, &spec.label).map_err(of_certificate)?;
        check_validity(&status, now).map_err(of_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&spec.key_pem)
            .map_err(|error| of_key(TlsProblem::Unreadable(error.to_string())))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| of_key(TlsProblem::Unreadable(error.to_string())))?;
        let key = CertifiedKey::new(chain, key);
        // A certificate that rustls cannot read fails here too, but then the pair does not match either.
        key.keys_match().map_err(|_| of_key(TlsProblem::KeyMismatch))?;
        Ok(Self { key: Arc::new(key), status })
    }

    fn is_ecdsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::ECDSA
    }
}

fn read_status(leaf: &CertificateDer<'_>, label: &str) -> Result<CertificateStatus, TlsProblem> {
    let unreadable = |error: &dyn std::fmt::Display| TlsProblem::Unreadable(error.to_string());
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unreadable(&error))?;
    let alternative = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(name_text).collect();
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(CertificateStatus {
        label: label.to_owned(),
        names,
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
    })
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn check_validity(status: &CertificateStatus, now: Now) -> Result<(), TlsProblem> {
    if now.wall < status.not_before {
        Err(TlsProblem::NotYetValid(status.not_before))
    } else if now.wall > status.not_after {
        Err(TlsProblem::Expired(status.not_after))
    } else {
        Ok(())
    }
}

/// True when `pem` begins with a certificate that is within its time.
#[must_use]
pub fn is_valid_at(pem: &[u8], now: Now) -> bool {
    let leaf = CertificateDer::from_pem_slice(pem).ok();
    let status = leaf.and_then(|leaf| read_status(&leaf, "").ok());
    status.is_some_and(|status| check_validity(&status, now).is_ok())
}

/// Certificates that stand for the same name: by preference, at most one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Group {
    ecdsa: Option<usize>,
    other: Option<usize>,
}

/// Chooses a certificate for a handshake.
#[derive(Debug)]
pub(super) struct Resolver {
    certificates: Vec<Certificate>,
    groups: Vec<Group>,
    exact: HashMap<String, usize>,
    /// By the part behind `*.`.
    wildcard: HashMap<String, usize>,
    default: usize,
    strict: bool,
}

impl Resolver {
    /// A resolver over all certificates of a listener; the first one is the default.
    pub(super) fn new(certificates: Vec<Certificate>, strict: bool) -> Self {
        // Ordered, so that the same certificates get the same numbers after a reload.
        let mut by_name: BTreeMap<&str, Group> = BTreeMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.status.names {
                let group = by_name.entry(name).or_default();
                let place = if certificate.is_ecdsa() { &mut group.ecdsa } else { &mut group.other };
                place.get_or_insert(index);
            }
        }
        let default = default_group(&certificates, &by_name);
        let mut groups = vec![default];
        let mut numbered = |group: Group| {
            groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                groups.push(group);
                groups.len() - 1
            })
        };
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (name, group) in by_name {
            match name.strip_prefix("*.") {
                Some(parent) => wildcard.insert(parent.to_owned(), numbered(group)),
                None => exact.insert(name.to_owned(), numbered(group)),
            };
        }
        Self { certificates, groups, exact, wildcard, default: 0, strict }
    }

    /// Number of the group that stands for `name`, in lower case; `None` when only the default is left.
    pub(super) fn named_group(&self, name: &str) -> Option<usize> {
        let by_wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(by_wildcard).copied()
    }

    /// Number of the group shown to a client that asks for `name`, or for none.
    pub(super) fn group_for(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.named_group(name)).unwrap_or(self.default)
    }

    /// The loaded certificates in the order of the configuration.
    pub(super) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }
}

/// The first certificate, with the one of the other kind that stands for its first name.
fn default_group(certificates: &[Certificate], by_name: &BTreeMap<&str, Group>) -> Group {
    let Some(first) = certificates.first() else { return Group::default() };
    let of_name = first.status.names.first().and_then(|name| by_name.get(name.as_str())).copied();
    of_name.unwrap_or(if first.is_ecdsa() {
        Group { ecdsa: Some(0), other: None }
    } else {
        Group { ecdsa: None, other: Some(0) }
    })
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let group = match name.as_deref().and_then(|name| self.named_group(name)) {
            Some(group) => group,
            None if self.strict => return None,
            None => self.default,
        };
        let group = self.groups.get(group)?;
        let usable = |index: &usize| {
            let certificate = self.certificates.get(*index)?;
            let scheme = certificate.key.key.choose_scheme(hello.signature_schemes());
            scheme.map(|_| Arc::clone(&certificate.key))
        };
        group.ecdsa.as_ref().and_then(usable).or_else(|| group.other.as_ref().and_then(usable))
    }
}
