//! Certificates for development: `tls = { self_signed = [...] }`.

use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

use crate::clock::Now;

/// How long a self-signed certificate is good for; browsers refuse much longer ones.
const VALIDITY: Duration = Duration::from_secs(397 * 24 * 60 * 60);
/// It begins in the past, for clients whose clocks are behind.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// A certificate and its key, both PEM: ECDSA P-256, for `names` (host names, wildcards, addresses).
///
/// # Errors
///
/// A name that is neither; in words.
pub fn self_signed(names: &[String], now: Now) -> Result<(String, String), String> {
    let in_words = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(names).map_err(in_words)?;
    let epoch = date_time_ymd(1970, 1, 1);
    let wall = Duration::from_secs(now.unix_seconds());
    params.not_before = epoch + wall.saturating_sub(SKEW);
    params.not_after = epoch + wall + VALIDITY;
    params.distinguished_name.push(DnType::CommonName, "Tidegate self-signed");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(in_words)?;
    let certificate = params.self_signed(&key).map_err(in_words)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
