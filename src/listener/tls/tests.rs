//! Handshakes over an in-memory pipe, with the rustls client at the other end.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::listener::testing::run;

/// A self-signed certificate for `names`.
fn certificate(names: &[&str], algorithm: &'static SignatureAlgorithm) -> CertificateSpec {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names.clone()).expect("names");
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    CertificateSpec {
        cert_pem: certificate.pem().into_bytes(),
        key_pem: key.serialize_pem().into_bytes(),
        label: names.join(","),
    }
}

fn spec(certificates: Vec<CertificateSpec>) -> TlsSpec {
    TlsSpec { certificates, h2: true, http1: true, tls13_only: false, strict_sni: false, client_auth: None }
}

fn keys() -> Arc<TicketKeys> {
    TicketKeys::generate(Clock::System.now()).expect("randomness")
}

fn build(spec: &TlsSpec, tickets: &Arc<TicketKeys>) -> ServerTls {
    ServerTls::build(spec, tickets, &Clock::System).expect("no faults")
}

/// Accepts any server certificate, remembers it, and offers `schemes`.
#[derive(Debug)]
struct Remember {
    seen: Mutex<Option<Vec<u8>>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Remember {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().expect("lock") = Some(leaf.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

const BOTH: [SignatureScheme; 2] = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

/// A client that keeps its tickets between handshakes.
struct Client {
    verifier: Arc<Remember>,
    config: ClientConfig,
}

impl Client {
    fn new(schemes: &[SignatureScheme], versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        Self::with_identity(schemes, versions, None)
    }

    fn with_identity(
        schemes: &[SignatureScheme],
        versions: &[&'static rustls::SupportedProtocolVersion],
        identity: Option<&CertificateSpec>,
    ) -> Self {
        let verifier = Arc::new(Remember { seen: Mutex::default(), schemes: schemes.to_vec() });
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(&identity.cert_pem).collect::<Result<_, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(&identity.key_pem).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        Self { verifier, config }
    }

    /// One handshake and one byte each way, so that tickets arrive.
    async fn handshake(&self, server: &ServerTls, name: &'static str) -> io::Result<TlsPeer> {
        let (near, far) = duplex(64 * 1024);
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from(name).expect("a name");
        let client = async {
            let mut stream = connector.connect(name, near).await?;
            stream.write_all(b"?").await?;
            stream.read_u8().await
        };
        let serving = async {
            let mut stream = TlsAcceptor::from(server.config()).accept(far).await?;
            let peer = server.peer(stream.get_ref().1);
            stream.read_u8().await?;
            stream.write_all(b"!").await?;
            stream.flush().await?;
            Ok::<_, io::Error>(peer)
        };
        let (answered, peer) = tokio::join!(client, serving);
        answered.and(peer)
    }

    fn shown(&self, spec: &TlsSpec) -> Option<usize> {
        let seen = self.verifier.seen.lock().expect("lock").clone()?;
        spec.certificates.iter().position(|pair| {
            CertificateDer::from_pem_slice(&pair.cert_pem).is_ok_and(|der| der.as_ref() == seen.as_slice())
        })
    }
}

fn ecdsa(names: &[&str]) -> CertificateSpec {
    certificate(names, &PKCS_ECDSA_P256_SHA256)
}

#[test]
fn the_name_chooses_the_certificate_and_ecdsa_is_preferred() {
    let rsa = certificate(&["shop.example"], &PKCS_RSA_SHA256);
    let spec =
        spec(vec![ecdsa(&["default.example"]), rsa, ecdsa(&["Shop.Example"]), ecdsa(&["*.shop.example", "127.0.0.1"])]);
    let server = build(&spec, &keys());
    let rsa_only = [SignatureScheme::RSA_PSS_SHA256];
    let cases: [(&'static str, &[SignatureScheme], usize); 6] = [
        ("shop.example", &BOTH, 2),
        ("shop.example", &rsa_only, 1),
        ("a.shop.example", &BOTH, 3),
        ("a.b.shop.example", &BOTH, 0),
        ("unknown.example", &BOTH, 0),
        ("127.0.0.1", &BOTH, 0),
    ];
    for (name, schemes, expected) in cases {
        for versions in [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]] {
            let client = Client::new(schemes, versions);
            let peer = run(client.handshake(&server, name)).expect(name);
            assert_eq!(client.shown(&spec), Some(expected), "{name}");
            assert_eq!(peer.version, if versions.len() == 1 { "TLSv1.2" } else { "TLSv1.3" });
            if name != "127.0.0.1" {
                assert_eq!(peer.certificate, server.certificate_for(name), "{name}");
            }
        }
    }
    assert_ne!(server.certificate_for("shop.example"), server.certificate_for("a.shop.example"));
    assert_eq!(server.certificate_for("a.shop.example"), server.certificate_for("127.0.0.1"), "one certificate");
    assert_eq!(server.certificate_for("unknown.example"), server.certificate_for("default.example"));
}

#[test]
fn strict_names_and_versions_refuse_the_rest() {
    let mut spec = spec(vec![ecdsa(&["shop.example"])]);
    spec.strict_sni = true;
    spec.tls13_only = true;
    let server = build(&spec, &keys());
    let any = Client::new(&BOTH, rustls::ALL_VERSIONS);
    assert!(run(any.handshake(&server, "shop.example")).is_ok());
    assert!(run(any.handshake(&server, "other.example")).is_err(), "an unknown name");
    assert!(run(any.handshake(&server, "127.0.0.1")).is_err(), "no name at all");
    let old = Client::new(&BOTH, &[&rustls::version::TLS12]);
    assert!(run(old.handshake(&server, "shop.example")).is_err(), "TLS 1.2");
}

/// An authority for client certificates, and one such certificate.
fn client_identity() -> (Vec<u8>, CertificateSpec) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let mut client = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = key();
    let certificate = client.signed_by(&client_key, &authority).expect("a certificate");
    let identity = CertificateSpec {
        cert_pem: certificate.pem().into_bytes(),
        key_pem: client_key.serialize_pem().into_bytes(),
        label: "client".to_owned(),
    };
    (authority.pem().into_bytes(), identity)
}

#[test]
fn client_certificates_are_asked_for_and_verified() {
    let (ca_pem, identity) = client_identity();
    let (_, stranger) = client_identity();
    let with_auth = |required| {
        let mut spec = spec(vec![ecdsa(&["a"])]);
        spec.client_auth = Some(ClientAuth { ca_pem: ca_pem.clone(), required });
        build(&spec, &keys())
    };
    let cases = [
        (true, Some(&identity), Some(true)),
        (true, None, None),
        (true, Some(&stranger), None),
        (false, Some(&identity), Some(true)),
        (false, None, Some(false)),
        (false, Some(&stranger), None),
    ];
    for (required, shown, verified) in cases {
        let client = Client::with_identity(&BOTH, rustls::ALL_VERSIONS, shown);
        let peer = run(client.handshake(&with_auth(required), "a"));
        let label = shown.map(|identity| identity.label.as_str());
        assert_eq!(peer.ok().map(|peer| peer.client_verified), verified, "required: {required}, shown: {label:?}");
    }
}

#[test]
fn sessions_resume_over_a_reload_but_not_into_client_authentication() {
    for versions in [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]] {
        let tickets = keys();
        let plain = spec(vec![ecdsa(&["a"])]);
        let client = Client::new(&BOTH, versions);
        let resumed = |server: &ServerTls| run(client.handshake(server, "a")).map(|peer| peer.resumed).ok();
        assert_eq!(resumed(&build(&plain, &tickets)), Some(false));
        assert_eq!(resumed(&build(&plain, &tickets)), Some(true), "the same settings, loaded again");

        let (ca_pem, _) = client_identity();
        let mutual = |required| {
            let client_auth = Some(ClientAuth { ca_pem: ca_pem.clone(), required });
            build(&TlsSpec { client_auth, ..plain.clone() }, &tickets)
        };
        assert_eq!(resumed(&mutual(true)), None, "a ticket is no certificate");
        // The refused attempt may have spent the ticket.
        resumed(&build(&plain, &tickets));
        assert_eq!(resumed(&mutual(false)), Some(false), "asked anew, not resumed");
        resumed(&build(&plain, &tickets));
        let others = spec(vec![ecdsa(&["a"])]);
        assert_eq!(resumed(&build(&others, &tickets)), Some(false), "other certificates");
    }
}

#[test]
fn every_fault_is_found_and_placed() {
    let clock = Clock::manual();
    let good = ecdsa(&["a"]);
    let mismatched = CertificateSpec { key_pem: ecdsa(&["b"]).key_pem, ..good.clone() };
    let aged = |from: Duration, to: Duration| {
        let now = clock.now();
        let epoch = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.unix_seconds());
        let mut params = CertificateParams::new(vec!["a".to_owned()]).expect("a name");
        (params.not_before, params.not_after) =
            (epoch + from - Duration::from_secs(1000), epoch + to - Duration::from_secs(1000));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        CertificateSpec { cert_pem: pem.into_bytes(), key_pem: key.serialize_pem().into_bytes(), label: "aged".into() }
    };
    let expired = aged(Duration::ZERO, Duration::from_secs(500));
    let early = aged(Duration::from_secs(2000), Duration::from_secs(3000));
    let broken = CertificateSpec {
        cert_pem: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
        ..good.clone()
    };
    let empty = CertificateSpec { cert_pem: Vec::new(), ..good.clone() };
    let keyless = CertificateSpec { key_pem: b"?".to_vec(), ..good.clone() };
    let mut spec = spec(vec![good, mismatched, expired, early, broken, empty, keyless]);
    spec.client_auth = Some(ClientAuth { ca_pem: Vec::new(), required: true });
    let faults = ServerTls::build(&spec, &keys(), &clock).expect_err("faults");
    let places: Vec<TlsPlace> = faults.iter().map(|fault| fault.place).collect();
    use TlsPlace::{Certificate, ClientCa, Key};
    let expected = [Key(1), Certificate(2), Certificate(3), Certificate(4), Certificate(5), Key(6), ClientCa];
    assert_eq!(places, expected);
    assert_eq!(faults[0].problem, TlsProblem::KeyMismatch);
    assert!(matches!(faults[1].problem, TlsProblem::Expired(_)));
    assert!(matches!(faults[2].problem, TlsProblem::NotYetValid(_)));
    assert!(matches!(faults[3].problem, TlsProblem::Unreadable(_)));
    assert_eq!(faults[4].problem, TlsProblem::Empty);
}

#[test]
fn a_self_signed_certificate_serves_its_names() {
    let clock = Clock::manual();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let (cert, key) = self_signed(&names, clock.now()).expect("a certificate");
    let pair = CertificateSpec { cert_pem: cert.into(), key_pem: key.into(), label: "dev".to_owned() };
    let server = ServerTls::build(&spec(vec![pair]), &keys(), &clock).expect("no faults");
    let status = server.certificates().remove(0);
    assert_eq!(status.names, names);
    assert!(status.not_after > clock.now().wall + Duration::from_secs(300 * 24 * 60 * 60));
    let client = Client::new(&BOTH, rustls::ALL_VERSIONS);
    assert!(run(client.handshake(&server, "localhost")).is_ok());
}
