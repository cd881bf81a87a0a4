//! Certificates made on the spot: a private authority, and whatever it signs.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate and its key as PEM text.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Issued {
    /// This certificate with another's key: they do not belong together.
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self { cert: self.cert.clone(), key: other.key.clone() }
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes()).map(Result::unwrap).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A client that trusts this very certificate, which nobody else signed.
pub fn trusting_certificate(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What a client insists on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wishes<'a> {
    /// ALPN, the best first; empty = none.
    pub protocols: &'a [&'a str],
    pub tls12_only: bool,
    /// TLS 1.2 with suites that need an RSA certificate.
    pub rsa_only: bool,
    /// A certificate to show.
    pub shown: Option<&'a Issued>,
}

/// An authority nobody else trusts.
pub struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test authority");
        Self { authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// The authority's certificate as PEM text.
    pub fn ca(&self) -> String {
        self.authority.pem()
    }

    /// An ECDSA server certificate.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(&PKCS_ECDSA_P256_SHA256, names, |_| {})
    }

    /// An RSA server certificate.
    pub fn rsa(&self, names: &[&str]) -> Issued {
        self.issue(&PKCS_RSA_SHA256, names, |_| {})
    }

    /// A server certificate whose time is over.
    pub fn expired(&self, names: &[&str]) -> Issued {
        self.issue(&PKCS_ECDSA_P256_SHA256, names, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    /// A client certificate.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(&PKCS_ECDSA_P256_SHA256, &[name], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn issue(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a test certificate");
        adjust(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority and speaks `protocols` (ALPN); each has its own store of sessions.
    pub fn trusting(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.wishing(&Wishes { protocols, ..Wishes::default() })
    }

    /// A client that trusts this authority.
    pub fn wishing(&self, wishes: &Wishes) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| !wishes.rsa_only || format!("{:?}", suite.suite()).contains("RSA"));
        let versions: &[_] = match (wishes.rsa_only, wishes.tls12_only) {
            (false, false) => rustls::DEFAULT_VERSIONS,
            _ => &[&rustls::version::TLS12],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match wishes.shown {
            Some(own) => builder.with_client_auth_cert(own.chain(), own.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = wishes.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// What an origin needs to speak TLS; with `demand` it asks for a certificate of this authority.
    pub fn origin(&self, own: &Issued, demand: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = if demand {
            let roots = Arc::new(self.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        Arc::new(builder.with_single_cert(own.chain(), own.private_key()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
