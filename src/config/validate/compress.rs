//! `[compress.NAME]`.

use super::Validation;
use crate::config::model::CompressConfig;
use crate::config::raw::{RawBreach, RawCoding, RawCompress};
use crate::config::shape::Given;
use crate::policy::encoding::{Breach, Coding, CompressParams, can_pad};

impl Validation<'_> {
    /// One compression policy.
    pub(super) fn compress(&mut self, name: &str, raw: &Given<RawCompress>) -> CompressConfig {
        let mut codings: Vec<Coding> = Vec::new();
        for coding in &raw.codings.0 {
            let known = match coding.value {
                RawCoding::Zstd => Coding::Zstd,
                RawCoding::Br => Coding::Br,
                RawCoding::Gzip => Coding::Gzip,
            };
            if codings.contains(&known) {
                self.faults.push(coding.place.fault("is listed twice", "the order says which is preferred"));
            }
            codings.push(known);
        }
        for media_type in raw.types.0.iter().filter(|media_type| !is_media_type(media_type)) {
            let what = format!("must be a media type, got {:?}", media_type.value);
            self.faults
                .push(media_type.place.fault(what, "write \"application/json\" or \"text/*\", without parameters"));
        }
        let types = raw.types.values().map(|media_type| media_type.to_ascii_lowercase()).collect();
        let breach = match raw.breach.value {
            RawBreach::Off => Breach::Off,
            RawBreach::Pad => Breach::Pad,
            RawBreach::Identity => Breach::Identity,
        };
        if breach == Breach::Pad && !codings.iter().copied().any(can_pad) {
            let help = "list zstd or gzip among codings as well, or use \"identity\"";
            self.faults.push(raw.breach.place.fault("= \"pad\" needs a coding that can be padded", help));
        }
        let params = CompressParams { codings, types, min_size: raw.min_size.0, strong: raw.strong.value, breach };
        CompressConfig { name: name.to_owned(), params }
    }
}

/// `type/subtype` or `type/*` (RFC 9110 §8.3.1), without parameters.
fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#' | b'$' | b'&' | b'^' | b'_' | b'.' | b'+' | b'-')
            })
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && (subtype == "*" || is_token(subtype)))
}

#[cfg(test)]
mod tests {
    use super::is_media_type;

    #[test]
    fn media_types_are_exact_or_a_whole_kind() {
        for (text, expected) in [
            ("text/*", true),
            ("image/svg+xml", true),
            ("*/*", false),
            ("text", false),
            ("text/html; charset=utf-8", false),
            ("text/", false),
        ] {
            assert_eq!(is_media_type(text), expected, "{text}");
        }
    }
}
