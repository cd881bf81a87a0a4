//! How long a request body is: the one decision that, taken differently here and at the origin, smuggles requests.
//!
//! RFC 9112 §6.3 leaves room for repair (equal lengths in a list, a coding before `chunked`); none of it is used.
//! Whatever is not plainly one length or plainly `chunked` is refused by name and the connection closes.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use crate::body::http1::{Framing, decimal};
use crate::error::ErrorKind;

/// The framing a head declares, or the reason it cannot be trusted. Cost: two map lookups without a body.
pub(super) fn decide(version: Version, headers: &HeaderMap) -> Result<Framing, ErrorKind> {
    let ambiguous = |reason| Err(ErrorKind::AmbiguousFraming(reason));
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::Empty),
        (Some(_), Some(_)) => ambiguous("te_with_cl"),
        (Some(_), None) if version < Version::HTTP_11 => ambiguous("te_in_http10"),
        (Some(_), None) if codings.next().is_some() => ambiguous("te_repeated"),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), None) => ambiguous("te_not_chunked"),
        (None, Some(_)) if lengths.next().is_some() => ambiguous("cl_repeated"),
        (None, Some(length)) if length.as_bytes().contains(&b',') => ambiguous("cl_list"),
        (None, Some(length)) => match decimal(length.as_bytes()) {
            Some(0) => Ok(Framing::Empty),
            Some(length) => Ok(Framing::Length(length)),
            None => ambiguous("cl_invalid"),
        },
    }
}

/// The reason to refuse a field name that some origin would fold into a framing field: `Transfer_Encoding` reads as
/// `Transfer-Encoding` to servers that map names to environment variables.
pub(in crate::listener) fn look_alike(name: &[u8]) -> Option<&'static str> {
    let folds_into = |framing: &[u8]| {
        name.len() == framing.len()
            && !name.eq_ignore_ascii_case(framing)
            && name.iter().zip(framing).all(|(byte, wanted)| {
                byte.eq_ignore_ascii_case(wanted) || (*wanted == b'-' && !byte.is_ascii_alphanumeric())
            })
    };
    match name.len() {
        17 if folds_into(b"transfer-encoding") => Some("te_lookalike"),
        14 if folds_into(b"content-length") => Some("cl_lookalike"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, fields: &[(&'static str, &'static str)], expected: Result<Framing, &'static str>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a field value"));
        }
        let expected = expected.map_err(ErrorKind::AmbiguousFraming);
        assert_eq!(decide(version, &headers), expected, "{version:?} {fields:?}");
    }

    #[test]
    fn one_plain_length_or_plain_chunked_and_nothing_else() {
        let (te, cl, v11) = ("transfer-encoding", "content-length", Version::HTTP_11);
        check(v11, &[], Ok(Framing::Empty));
        check(v11, &[(cl, "0")], Ok(Framing::Empty));
        check(v11, &[(cl, "5")], Ok(Framing::Length(5)));
        check(v11, &[(cl, "18446744073709551615")], Ok(Framing::Length(u64::MAX)));
        check(v11, &[(te, "chunked")], Ok(Framing::Chunked));
        check(v11, &[(te, "Chunked")], Ok(Framing::Chunked));
        check(v11, &[(te, "chunked"), (cl, "5")], Err("te_with_cl"));
        check(v11, &[(te, "chunked"), (te, "chunked")], Err("te_repeated"));
        check(v11, &[(te, "identity"), (te, "chunked")], Err("te_repeated"));
        for odd in ["xchunked", "chunked, identity", "gzip, chunked", "chunked,", "identity", "", "\u{b}chunked"] {
            if odd.parse::<http::HeaderValue>().is_ok() {
                check(v11, &[(te, odd)], Err("te_not_chunked"));
            }
        }
        check(Version::HTTP_10, &[(te, "chunked")], Err("te_in_http10"));
        check(Version::HTTP_10, &[(cl, "5")], Ok(Framing::Length(5)));
        check(v11, &[(cl, "5"), (cl, "5")], Err("cl_repeated"));
        check(v11, &[(cl, "5, 5")], Err("cl_list"));
        for odd in ["", "+5", "-5", "5 5", "0x5", "5.0", "18446744073709551616"] {
            check(v11, &[(cl, odd)], Err("cl_invalid"));
        }
    }

    #[test]
    fn names_that_fold_into_framing_fields_are_told_from_names_that_do_not() {
        assert_eq!(look_alike(b"Transfer_Encoding"), Some("te_lookalike"));
        assert_eq!(look_alike(b"transfer.encoding"), Some("te_lookalike"));
        assert_eq!(look_alike(b"Content_Length"), Some("cl_lookalike"));
        for fine in ["Transfer-Encoding", "content-length", "TransferXEncoding", "Content-Lengthy", "X_Custom"] {
            assert_eq!(look_alike(fine.as_bytes()), None, "{fine}");
        }
    }
}
