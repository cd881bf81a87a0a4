//! How long a body is: the one decision that, taken differently by two servers in a row, smuggles messages.
//!
//! RFC 9112 §6.3 leaves room for repair (equal lengths in a list, a coding before `chunked`); none of it is used, for
//! requests or for responses. Whatever is not plainly one length or plainly `chunked` is refused by name.

use http::Version;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body follows the head.
    Empty,
    /// Exactly this many bytes follow; never zero.
    Length(u64),
    /// Chunks follow, then a trailer section.
    Chunked,
}

/// What the framing fields of a head say, taken in as the head is read.
#[derive(Debug, Default)]
pub struct Declared {
    codings: u32,
    chunked: bool,
    lengths: u32,
    length: Option<u64>,
    list: bool,
}

impl Declared {
    /// Takes in a `Transfer-Encoding`.
    pub fn add_coding(&mut self, value: &[u8]) {
        self.codings += 1;
        self.chunked = value.eq_ignore_ascii_case(b"chunked");
    }

    /// Takes in a `Content-Length`.
    pub fn add_length(&mut self, value: &[u8]) {
        self.lengths += 1;
        self.length = decimal(value);
        self.list = value.contains(&b',');
    }

    /// The framing they declare; `None` when there were none.
    ///
    /// # Errors
    /// The reason why they cannot be trusted.
    pub fn framing(&self, version: Version) -> Result<Option<Framing>, &'static str> {
        match (self.codings, self.lengths) {
            (0, 0) => Ok(None),
            (1.., 1..) => Err("te_with_cl"),
            (1.., 0) if version < Version::HTTP_11 => Err("te_in_http10"),
            (2.., 0) => Err("te_repeated"),
            (1, 0) if self.chunked => Ok(Some(Framing::Chunked)),
            (1, 0) => Err("te_not_chunked"),
            (0, 2..) => Err("cl_repeated"),
            (0, 1) if self.list => Err("cl_list"),
            (0, 1) => match self.length {
                Some(0) => Ok(Some(Framing::Empty)),
                Some(length) => Ok(Some(Framing::Length(length))),
                None => Err("cl_invalid"),
            },
        }
    }
}

/// The value of a run of ASCII digits; `None` for anything else and beyond 64 bits. `+5`, ` 5` and the empty string,
/// which `str::parse` and lenient servers disagree about, are `None`.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        version: Version,
        fields: &[(&'static str, &'static str)],
        expected: Result<Option<Framing>, &'static str>,
    ) {
        let mut declared = Declared::default();
        for (name, value) in fields {
            match *name {
                "transfer-encoding" => declared.add_coding(value.as_bytes()),
                _ => declared.add_length(value.as_bytes()),
            }
        }
        assert_eq!(declared.framing(version), expected, "{version:?} {fields:?}");
    }

    #[test]
    fn one_plain_length_or_plain_chunked_and_nothing_else() {
        let (te, cl, v11) = ("transfer-encoding", "content-length", Version::HTTP_11);
        check(v11, &[], Ok(None));
        check(v11, &[(cl, "0")], Ok(Some(Framing::Empty)));
        check(v11, &[(cl, "5")], Ok(Some(Framing::Length(5))));
        check(v11, &[(cl, "18446744073709551615")], Ok(Some(Framing::Length(u64::MAX))));
        check(v11, &[(te, "chunked")], Ok(Some(Framing::Chunked)));
        check(v11, &[(te, "Chunked")], Ok(Some(Framing::Chunked)));
        check(v11, &[(te, "chunked"), (cl, "5")], Err("te_with_cl"));
        check(v11, &[(te, "chunked"), (te, "chunked")], Err("te_repeated"));
        check(v11, &[(te, "identity"), (te, "chunked")], Err("te_repeated"));
        for odd in ["xchunked", "chunked, identity", "gzip, chunked", "chunked,", "identity", "", "\u{b}chunked"] {
            check(v11, &[(te, odd)], Err("te_not_chunked"));
        }
        check(Version::HTTP_10, &[(te, "chunked")], Err("te_in_http10"));
        check(Version::HTTP_10, &[(cl, "5")], Ok(Some(Framing::Length(5))));
        check(v11, &[(cl, "5"), (cl, "5")], Err("cl_repeated"));
        check(v11, &[(cl, "5, 5")], Err("cl_list"));
        for odd in ["", "+5", "-5", "5 5", "0x5", "5.0", "18446744073709551616"] {
            check(v11, &[(cl, odd)], Err("cl_invalid"));
        }
    }
}
