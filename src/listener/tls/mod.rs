//! TLS termination with rustls on aws-lc-rs: TLS 1.3, and 1.2 with AEAD suites.
//!
//! [`ServerTls::build`] turns PEM texts into everything a listener needs for its handshakes, or into all faults at once.
//! Off on purpose: early data (replay), server-side session storage (a shared lock; tickets do it), renegotiation (not
//! in rustls), OCSP stapling.

mod certificates;
mod self_signed;
mod tickets;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};

use self::certificates::{Certificate, Resolver};
use self::tickets::Ticketer;
use crate::body::TlsPeer;
use crate::clock::Clock;

pub use certificates::{CertificateStatus, is_valid_at};
pub use self_signed::self_signed;
pub use tickets::{ROTATION, TicketKeyError, TicketKeys};

/// One certificate chain and key as text.
#[derive(Debug, Clone)]
pub struct CertificateSpec {
    /// The chain, leaf first.
    pub cert_pem: Vec<u8>,
    /// The private key of the leaf.
    pub key_pem: Vec<u8>,
    /// What the configuration calls it; shown in status.
    pub label: String,
}

/// Whether clients are asked for certificates.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    /// The authorities client certificates must come from.
    pub ca_pem: Vec<u8>,
    /// A client without a certificate is refused.
    pub required: bool,
}

/// What a listener's `tls` table says, files read.
#[derive(Debug, Clone)]
pub struct TlsSpec {
    /// The first is the default.
    pub certificates: Vec<CertificateSpec>,
    /// Offer `h2` in ALPN.
    pub h2: bool,
    /// Offer `http/1.1` in ALPN.
    pub http1: bool,
    /// `min_version = "1.3"`
    pub tls13_only: bool,
    /// Refuse handshakes whose server name no certificate covers, or that name none.
    pub strict_sni: bool,
    /// `client_auth`
    pub client_auth: Option<ClientAuth>,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPlace {
    /// The chain of the certificate with this index.
    Certificate(usize),
    /// The key of the certificate with this index.
    Key(usize),
    /// `client_auth.ca`
    ClientCa,
    /// The table as a whole.
    Table,
}

/// What is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// Not PEM, not X.509, or of a kind that is not supported.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// No certificate in the file.
    #[error("contains no certificate")]
    Empty,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate's time is over.
    #[error("expired on {}", httpdate::fmt_http_date(*.0))]
    Expired(SystemTime),
    /// The certificate's time has not come.
    #[error("is not valid before {}", httpdate::fmt_http_date(*.0))]
    NotYetValid(SystemTime),
}

/// One reason why a listener's TLS cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    /// Where.
    pub place: TlsPlace,
    /// What.
    pub problem: TlsProblem,
}

/// Everything one TLS listener needs for its handshakes.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    client_auth: bool,
}

impl ServerTls {
    /// Builds it, or returns every fault. `tickets` outlive the reloads that make new ones of these.
    pub fn build(spec: &TlsSpec, tickets: &Arc<TicketKeys>, clock: &Clock) -> Result<Self, Vec<TlsFault>> {
        let provider = Arc::new(ordered_provider());
        let mut faults = Vec::new();
        let mut certificates = Vec::new();
        for (index, pair) in spec.certificates.iter().enumerate() {
            match Certificate::load(pair, index, &provider, clock.now()) {
                Ok(certificate) => certificates.push(certificate),
                Err(fault) => faults.push(fault),
            }
        }
        if spec.certificates.is_empty() {
            faults.push(TlsFault { place: TlsPlace::Table, problem: TlsProblem::Empty });
        }
        let verifier = match &spec.client_auth {
            None => Ok(WebPkiClientVerifier::no_client_auth()),
            Some(auth) => client_verifier(auth, &provider),
        };
        let verifier = match verifier {
            Ok(verifier) if faults.is_empty() => verifier,
            Ok(_) => return Err(faults),
            Err(problem) => {
                faults.push(TlsFault { place: TlsPlace::ClientCa, problem });
                return Err(faults);
            }
        };
        let resolver = Arc::new(Resolver::new(certificates, spec.strict_sni));
        let ticketer = Ticketer { keys: Arc::clone(tickets), binding: binding(spec, &resolver), clock: clock.clone() };
        let config = server_config(spec, provider, verifier, Arc::clone(&resolver), ticketer).map_err(|error| {
            vec![TlsFault { place: TlsPlace::Table, problem: TlsProblem::Unreadable(error.to_string()) }]
        })?;
        Ok(Self { config: Arc::new(config), resolver, client_auth: spec.client_auth.is_some() })
    }

    /// The loaded certificates, in the order of the configuration.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        self.resolver.certificates().iter().map(|certificate| certificate.status.clone()).collect()
    }

    /// The group of certificates a client gets that asks for `host` (lower case, no port); the same numbers as
    /// [`TlsPeer::certificate`].
    #[must_use]
    pub fn certificate_for(&self, host: &str) -> usize {
        self.resolver.group_for(Some(host))
    }

    /// The rustls configuration for a handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What a completed handshake settled.
    pub(super) fn peer(&self, connection: &ServerConnection) -> TlsPeer {
        let server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
        TlsPeer {
            certificate: self.resolver.group_for(server_name.as_deref()),
            server_name,
            client_auth: self.client_auth,
            client_verified: connection.peer_certificates().is_some_and(|chain| !chain.is_empty()),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The provider with AES-128-GCM first: as strong as handshakes here get, and the fastest in bulk.
fn ordered_provider() -> CryptoProvider {
    let mut provider = provider::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    provider
}

fn client_verifier(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let unreadable = |error: &dyn std::fmt::Display| TlsProblem::Unreadable(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&auth.ca_pem) {
        let authority = authority.map_err(|error| unreadable(&error))?;
        roots.add(authority).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(TlsProblem::Empty);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| unreadable(&error))
}

fn server_config(
    spec: &TlsSpec,
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<Resolver>,
    ticketer: Ticketer,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = if spec.tls13_only { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = [(spec.h2, &b"h2"[..]), (spec.http1, b"http/1.1")]
        .into_iter()
        .filter(|(offered, _)| *offered)
        .map(|(_, name)| name.to_vec())
        .collect();
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.ticketer = Arc::new(ticketer);
    config.max_early_data_size = 0;
    Ok(config)
}

/// Digest of what a session ticket vouches for: the certificates shown, and how clients are verified.
fn binding(spec: &TlsSpec, resolver: &Resolver) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    match &spec.client_auth {
        None => add(b"no client certificates"),
        Some(ClientAuth { ca_pem, required }) => {
            add(if *required { b"required" } else { b"requested" });
            add(ca_pem);
        }
    }
    for certificate in resolver.certificates() {
        certificate.key.cert.iter().for_each(|der| add(der));
    }
    let mut binding = [0; 32];
    binding.iter_mut().zip(context.finish().as_ref()).for_each(|(place, byte)| *place = *byte);
    binding
}
