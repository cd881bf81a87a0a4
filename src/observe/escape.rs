//! Bytes that clients sent → bytes that are safe in a log line (OWASP log injection, terminal escapes).
//!
//! A value is cut after [`VALUE_MAX`] bytes, which bounds a line whatever the limits of a listener are.

use std::io::Write as _;

/// Bytes of one value that reach a line: the default of `limits.uri`, so that a request target is whole by default.
pub(super) const VALUE_MAX: usize = 8 * 1024;

/// What stands behind a value that was cut.
const CUT: &[u8] = b"...";

/// Appends `value` for the text formats as Apache and nginx do: `"`, `\`, control bytes and everything beyond ASCII
/// become `\xHH`. Cost: one copy per clean run.
pub(super) fn text(value: &[u8], out: &mut Vec<u8>) {
    bounded(value, out, |value, out| {
        runs(
            value,
            out,
            |byte| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\',
            |byte, out| {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "\\x{byte:02X}");
            },
        );
    });
}

/// Appends `value` as the inside of a JSON string (RFC 8259 §7). C0 and C1 controls, DEL and the two Unicode line
/// separators are escaped; what is not UTF-8 becomes U+FFFD.
pub(super) fn json(value: &[u8], out: &mut Vec<u8>) {
    bounded(value, out, |value, out| {
        if value.is_ascii() {
            return ascii_json(value, out);
        }
        for chunk in value.utf8_chunks() {
            for character in chunk.valid().chars() {
                let control = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
                if control || character.is_ascii() {
                    json_character(character, out);
                } else {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    });
}

fn ascii_json(value: &[u8], out: &mut Vec<u8>) {
    let clean = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    runs(value, out, clean, |byte, out| json_character(char::from(byte), out));
}

fn json_character(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        ' '..='~' => out.push(character as u8),
        other => {
            let _ = write!(out, "\\u{:04x}", u32::from(other));
        }
    }
}

fn bounded(value: &[u8], out: &mut Vec<u8>, write: impl Fn(&[u8], &mut Vec<u8>)) {
    match value.get(..VALUE_MAX) {
        Some(head) if value.len() > VALUE_MAX => {
            write(head, out);
            out.extend_from_slice(CUT);
        }
        _ => write(value, out),
    }
}

/// Copies runs of `clean` bytes whole and hands every other byte to `escape`.
fn runs(value: &[u8], out: &mut Vec<u8>, clean: impl Fn(u8) -> bool, escape: impl Fn(u8, &mut Vec<u8>)) {
    for run in value.chunk_by(|left, right| clean(*left) && clean(*right)) {
        match run {
            [byte] if !clean(*byte) => escape(*byte, out),
            run => out.extend_from_slice(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_client_can_end_a_line_or_a_string() {
        let check = |value: &[u8], as_text: &str, as_json: &str| {
            let (mut text_line, mut json_line) = (Vec::new(), Vec::new());
            text(value, &mut text_line);
            json(value, &mut json_line);
            assert_eq!(String::from_utf8(text_line).unwrap(), as_text, "text of {value:?}");
            assert_eq!(String::from_utf8(json_line).unwrap(), as_json, "json of {value:?}");
        };
        check(b"", "", "");
        check(b"plain /path?x=1", "plain /path?x=1", "plain /path?x=1");
        check(b"a\r\nb", r"a\x0D\x0Ab", r"a\u000d\u000ab");
        check(b"\"\\", r"\x22\x5C", r#"\"\\"#);
        check(b"\x1b[31m\x7f\0", r"\x1B[31m\x7F\x00", r"\u001b[31m\u007f\u0000");
        check("grün".as_bytes(), r"gr\xC3\xBCn", "grün");
        check("a\u{85}b\u{2028}".as_bytes(), r"a\xC2\x85b\xE2\x80\xA8", r"a\u0085b\u2028");
        check("ü\n".as_bytes(), r"\xC3\xBC\x0A", r"ü\u000a");
        check(b"\xff\xfe\"", r"\xFF\xFE\x22", "\u{fffd}\u{fffd}\\\"");
    }

    #[test]
    fn a_value_is_cut_at_its_bound() {
        let mut line = Vec::new();
        json(&vec![b'a'; VALUE_MAX], &mut line);
        assert_eq!(line.len(), VALUE_MAX);
        line.clear();
        text(&vec![b'a'; VALUE_MAX + 1], &mut line);
        assert_eq!(line.len(), VALUE_MAX + CUT.len());
    }
}
