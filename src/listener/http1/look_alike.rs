//! Field names that some origin would take for a framing field.

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
