//! Finds the digests by which pages and scripts name other files (Subresource Integrity §3.5): `sha256-`, `sha384-` or
//! `sha512-` and base64, in an attribute, an import map, or the source of a loader.

/// A digest by its first 16 bytes; enough, since who could choose a second file for it could choose the first.
pub type Digest = u128;

/// Base64 characters that make a [`Digest`].
const DIGITS: usize = 22;
/// Longest spelling of one digit that is understood.
const SPELLING_MAX: usize = 6;
/// Bytes that are looked at again with the next piece: a prefix and all its digits, each spelled at length.
const OVERLAP: usize = PREFIX + DIGITS * SPELLING_MAX;
const PREFIX: usize = "sha256-".len();

/// Searches a stream. Holds at most `OVERLAP` bytes of it.
#[derive(Debug, Default)]
pub struct Scanner {
    tail: Vec<u8>,
}

impl Scanner {
    /// Takes in one piece; `found` may be told of one digest several times. Cost: one pass over the piece.
    pub fn push(&mut self, piece: &[u8], mut found: impl FnMut(Digest)) {
        let bridge = piece.get(..piece.len().min(OVERLAP)).unwrap_or_default();
        self.tail.extend_from_slice(bridge);
        search(&self.tail, &mut found);
        if piece.len() > OVERLAP {
            search(piece, &mut found);
        }
        let whole = if piece.len() > OVERLAP { piece } else { &std::mem::take(&mut self.tail) };
        let rest = whole.get(whole.len().saturating_sub(OVERLAP)..).unwrap_or_default().to_vec();
        self.tail = rest;
    }
}

fn search(bytes: &[u8], found: &mut impl FnMut(Digest)) {
    const NAMES: [&[u8]; 3] = [b"sha256", b"sha384", b"sha512"];
    // The dash is rarer than the letters.
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'-') {
        let name = at.checked_sub(PREFIX - 1).and_then(|from| bytes.get(from..at)).unwrap_or_default();
        if NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
            && let Some(digest) = bytes.get(at + 1..).and_then(decode)
        {
            found(digest);
        }
    }
}

/// The first 16 bytes of base64 or base64url, as text, or escaped as HTML and scripts may.
fn decode(mut text: &[u8]) -> Option<Digest> {
    let mut bits: u128 = 0;
    for digit in 0..DIGITS {
        let (value, length) = self::digit(text)?;
        text = text.get(length..)?;
        // 22 digits have 132 bits, of which the last four are left out.
        bits = if digit + 1 < DIGITS { bits << 6 | u128::from(value) } else { bits << 2 | u128::from(value >> 4) };
    }
    Some(bits)
}

/// The value of the digit at the beginning of `text`, and how long it is spelled.
fn digit(text: &[u8]) -> Option<(u8, usize)> {
    const PLUS: [&[u8]; 5] = [b"&#43;", b"&#x2b;", b"&plus;", b"\\u002b", b"\\x2b"];
    const SLASH: [&[u8]; 6] = [b"&#47;", b"&#x2f;", b"&sol;", b"\\u002f", b"\\x2f", b"\\/"];
    let spelled = |spellings: &[&[u8]]| {
        let begins =
            |spelling: &&&[u8]| text.get(..spelling.len()).is_some_and(|start| start.eq_ignore_ascii_case(spelling));
        spellings.iter().find(begins).map(|spelling| spelling.len())
    };
    match *text.first()? {
        letter @ b'A'..=b'Z' => Some((letter - b'A', 1)),
        letter @ b'a'..=b'z' => Some((letter - b'a' + 26, 1)),
        number @ b'0'..=b'9' => Some((number - b'0' + 52, 1)),
        b'+' | b'-' => Some((62, 1)),
        b'/' | b'_' => Some((63, 1)),
        b'&' | b'\\' => {
            spelled(&PLUS).map(|length| (62, length)).or_else(|| spelled(&SLASH).map(|length| (63, length)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, size: usize) -> Vec<Digest> {
        let (mut scanner, mut digests) = (Scanner::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            scanner.push(piece, |digest| digests.push(digest));
        }
        digests.dedup();
        digests
    }

    #[test]
    fn digests_are_found_however_they_are_spelled_and_cut() {
        // SHA-256 of no bytes.
        let expected: Digest = 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924;
        let digest = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let escaped = digest.replace('+', "&#43;");
        let script = digest.replace('/', "\\/").replace('+', "\\u002B");
        for text in [
            format!("<script integrity=\"sha256-{digest}\" src=a.js>"),
            format!("<script integrity=\"SHA384-{escaped}\">"),
            format!("{{\"a\":\"sha512-{script}\"}}"),
            format!("{}x-y-sha256-{}", "-".repeat(300), digest.replace('+', "-").replace('/', "_")),
        ] {
            let padded = format!("{text}{}", " ".repeat(400));
            for size in [1, 7, 150, 1000] {
                assert_eq!(found(&padded, size), [expected], "{text} by {size}");
            }
        }
        for text in
            ["sha256-47DEQpj8", "sha1-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NM", "sha256_47DEQpj8HBSa+/TImW+5JCeuQeRkm5NM"]
        {
            assert_eq!(found(text, 1000), [], "{text}");
        }
    }
}
