//! TLS towards the origins: one client identity per pool.
//!
//! The origin is verified against the system's roots or a private CA, TLS 1.2 and 1.3, ALPN by the pool's `protocol`.
//! Sessions are resumed per server name; a reload that leaves the `tls` table alone keeps them (see `Pool::build`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::policy::pool::OriginProtocol;

/// ALPN names (RFC 7301).
pub(super) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Server names whose sessions are kept per pool; each keeps a handful of tickets.
const RESUMED_NAMES: usize = 256;

/// `tls` of a pool, with its files read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsSpec {
    /// `server_name`; `None` = the endpoint's host name or address.
    pub server_name: Option<String>,
    /// `ca`: PEM text; `None` = the system's roots.
    pub ca_pem: Option<Vec<u8>>,
    /// `client`: certificate chain and key, PEM text each.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// `insecure`: do not verify.
    pub insecure: bool,
    /// `protocol` of the pool: what ALPN offers.
    pub protocol: OriginProtocol,
}

impl std::fmt::Debug for TlsSpec {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSpec")
            .field("server_name", &self.server_name)
            .field("private_ca", &self.ca_pem.is_some())
            .field("client_certificate", &self.client.is_some())
            .field("insecure", &self.insecure)
            .field("protocol", &self.protocol)
            .finish()
    }
}

/// Why a `tls` table cannot be used; each names its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// No certificate in `ca`, or one that is no CA certificate.
    #[error("ca: {0}")]
    Ca(String),
    /// The system has no usable root certificates.
    #[error("no usable root certificates on this system; name a `ca`")]
    NoRoots,
    /// `client.cert` cannot be read.
    #[error("client.cert: {0}")]
    ClientCertificate(String),
    /// `client.key` cannot be read, or does not belong to `client.cert`.
    #[error("client.key: {0}")]
    ClientKey(String),
    /// `server_name` is neither a DNS name nor an IP address.
    #[error("server_name: `{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The crypto library refuses the settings; not expected.
    #[error("{0}")]
    Provider(String),
}

/// A pool's TLS identity, ready for handshakes.
#[derive(Debug)]
pub struct ClientTls {
    id: u64,
    spec: TlsSpec,
    config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone.
    http1: Arc<ClientConfig>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ClientTls {
    /// Compiles `spec`. Reads the system's root certificates unless a `ca` is given.
    ///
    /// # Errors
    /// The first fault found in `spec`.
    pub fn build(spec: TlsSpec) -> Result<Self, TlsFault> {
        if let Some(name) = &spec.server_name {
            ServerName::try_from(name.as_str()).map_err(|_| TlsFault::ServerName(name.clone()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|fault| TlsFault::Provider(fault.to_string()))?;
        let builder = if spec.insecure {
            tracing::warn!(server_name = spec.server_name, "insecure = true: the origin's certificate is NOT verified");
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else {
            builder.with_root_certificates(roots(spec.ca_pem.as_deref())?)
        };
        let mut config = match &spec.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate).map_err(TlsFault::ClientCertificate)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|fault| TlsFault::ClientKey(fault.to_string()))?;
                builder.with_client_auth_cert(chain, key).map_err(|fault| TlsFault::ClientKey(fault.to_string()))?
            }
        };
        let offered: &[&[u8]] = match spec.protocol {
            OriginProtocol::Http1 => &[ALPN_HTTP1],
            OriginProtocol::Http2 => &[ALPN_H2],
            OriginProtocol::Auto => &[ALPN_H2, ALPN_HTTP1],
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(RESUMED_NAMES);
        let config = Arc::new(config);
        let http1 = match spec.protocol {
            OriginProtocol::Http1 => Arc::clone(&config),
            OriginProtocol::Http2 | OriginProtocol::Auto => {
                let mut http1 = (*config).clone();
                http1.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
                Arc::new(http1)
            }
        };
        Ok(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), spec, config, http1 })
    }

    /// What it was built from.
    #[must_use]
    pub fn spec(&self) -> &TlsSpec {
        &self.spec
    }

    /// A number no other identity of this process has: connections made under one are not used under another.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The same, with nothing but HTTP/1.1 on offer.
    pub(super) fn http1(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.http1)
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The certificates of a PEM text; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|fault| fault.to_string())?;
    if chain.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(chain) }
}

fn roots(ca_pem: Option<&[u8]>) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in certificates(pem).map_err(TlsFault::Ca)? {
                roots.add(certificate).map_err(|fault| TlsFault::Ca(fault.to_string()))?;
            }
        }
        None => {
            // A system store may hold a few certificates that do not parse; the others still serve.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsFault::NoRoots);
            }
        }
    }
    Ok(roots)
}

/// `insecure = true`: any certificate passes. Signatures are still checked, so that whoever shows a certificate at least
/// holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["origin.example".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn each_fault_names_its_key() {
        let (certificate, key) = pair();
        let (_, other_key) = pair();
        let spec = |edit: &dyn Fn(&mut TlsSpec)| {
            let mut spec = TlsSpec { ca_pem: Some(certificate.clone()), ..TlsSpec::default() };
            edit(&mut spec);
            ClientTls::build(spec)
        };
        assert!(spec(&|_| ()).is_ok());
        assert!(spec(&|spec| spec.client = Some((certificate.clone(), key.clone()))).is_ok());
        let faults = [
            spec(&|spec| spec.ca_pem = Some(b"no pem".to_vec())),
            spec(&|spec| spec.client = Some((b"".to_vec(), key.clone()))),
            spec(&|spec| spec.client = Some((certificate.clone(), b"".to_vec()))),
            spec(&|spec| spec.client = Some((certificate.clone(), other_key.clone()))),
            spec(&|spec| spec.server_name = Some("not a name".into())),
        ];
        let keys = faults.map(|fault| fault.err().map(|fault| fault.to_string()).unwrap_or_default());
        let named = keys.each_ref().map(|text| text.split(':').next().unwrap_or_default());
        assert_eq!(named, ["ca", "client.cert", "client.key", "client.key", "server_name"]);
    }

    #[test]
    fn the_key_is_not_printed() {
        let spec = TlsSpec { client: Some((b"certificate".to_vec(), b"secret".to_vec())), ..TlsSpec::default() };
        let secret = format!("{:?}", b"secret").trim_matches(['[', ']']).to_owned();
        assert!(!format!("{spec:?}").contains(&secret));
    }
}
