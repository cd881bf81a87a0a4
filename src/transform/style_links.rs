//! Style sheets with their links repaired, streaming: what stands in `url()` and behind `@import`.
//!
//! One pass over the bytes by as much of CSS Syntax §4 as tells where a URL begins and ends: comments, strings and escapes.
//! Only a URL that is not complete yet is held back, at most `URL_MAX` bytes of it; everything else leaves at once.

use std::sync::Arc;

use bytes::BytesMut;

use super::{Fault, Filter};
use crate::policy::links::Links;

/// Longest URL that is looked at; of `data:` URLs nothing is to be repaired.
const URL_MAX: usize = 8 * 1024;
/// Letters of a name that are kept: enough for `@import`.
const WORD_MAX: usize = 8;

/// Repairs the links of one style sheet, or of one `style` attribute or element.
#[derive(Debug)]
pub struct StyleLinks {
    links: Arc<Links>,
    state: State,
    /// The name that is being read, lower case; empty between names.
    word: Vec<u8>,
    /// `@import` and white space came last.
    import: bool,
    /// A URL, as far as it has come.
    held: Vec<u8>,
    /// The URL that is being read is not held: too long, or with an escape in it.
    passing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    /// Behind `/`.
    Slash,
    Comment,
    /// Behind `*` in a comment.
    Star,
    String {
        quote: u8,
        /// What is in it is a URL.
        is_url: bool,
        /// Behind a backslash.
        escaped: bool,
    },
    /// Behind `url(` and white space.
    Url,
    /// In a URL without quotes.
    Bare {
        escaped: bool,
    },
}

impl StyleLinks {
    /// For one style sheet.
    #[must_use]
    pub fn new(links: Arc<Links>) -> Self {
        Self { links, state: State::Plain, word: Vec::new(), import: false, held: Vec::new(), passing: false }
    }

    /// A whole text; `None` = as it is.
    #[must_use]
    pub fn repair(links: &Arc<Links>, text: &str) -> Option<String> {
        let (mut style, mut output) = (Self::new(Arc::clone(links)), BytesMut::new());
        style.take(text.as_bytes(), &mut output);
        style.release(&mut output);
        (output != text.as_bytes()).then(|| String::from_utf8_lossy(&output).into_owned())
    }

    /// Takes in one piece.
    pub fn take(&mut self, piece: &[u8], output: &mut BytesMut) {
        for &byte in piece {
            self.byte(byte, output);
        }
    }

    /// Gives back what is held as it came; what follows of that URL passes.
    pub fn release(&mut self, output: &mut BytesMut) {
        output.extend_from_slice(&self.held);
        self.held.clear();
        self.passing = true;
    }

    fn byte(&mut self, byte: u8, output: &mut BytesMut) {
        match self.state {
            State::Plain => {
                self.plain(byte);
                output.extend_from_slice(&[byte]);
            }
            State::Slash => {
                self.state = State::Plain;
                if byte == b'*' {
                    self.state = State::Comment;
                } else {
                    self.import = false;
                    self.plain(byte);
                }
                output.extend_from_slice(&[byte]);
            }
            State::Comment | State::Star => {
                self.state = match (self.state, byte) {
                    (State::Star, b'/') => State::Plain,
                    (_, b'*') => State::Star,
                    _ => State::Comment,
                };
                output.extend_from_slice(&[byte]);
            }
            State::String { quote, is_url, escaped } => self.string(byte, (quote, is_url, escaped), output),
            State::Url => {
                self.passing = false;
                match byte {
                    b'"' | b'\'' => self.state = State::String { quote: byte, is_url: true, escaped: false },
                    b')' => self.state = State::Plain,
                    byte if byte.is_ascii_whitespace() => {}
                    byte => {
                        self.state = State::Bare { escaped: false };
                        return self.bare(byte, false, output);
                    }
                }
                output.extend_from_slice(&[byte]);
            }
            State::Bare { escaped } => self.bare(byte, escaped, output),
        }
    }

    /// Where names, strings and comments begin. The byte itself goes out.
    fn plain(&mut self, byte: u8) {
        let is_import = self.import || self.word == b"@import";
        let is_name = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'\\' | b'@') || byte >= 0x80;
        if is_name {
            if byte == b'@' {
                self.word.clear();
            }
            if self.word.len() < WORD_MAX {
                self.word.push(byte.to_ascii_lowercase());
            }
            self.import = false;
            return;
        }
        let is_url = self.word == b"url";
        self.word.clear();
        self.import = is_import && (byte.is_ascii_whitespace() || byte == b'/');
        match byte {
            b'(' if is_url => self.state = State::Url,
            b'"' | b'\'' => {
                self.passing = false;
                self.state = State::String { quote: byte, is_url: is_import, escaped: false };
            }
            b'/' => self.state = State::Slash,
            _ => {}
        }
    }

    fn string(&mut self, byte: u8, (quote, is_url, escaped): (u8, bool, bool), output: &mut BytesMut) {
        if !escaped && (byte == quote || byte == b'\n') {
            // A line end makes it a bad string, whose URL counts for nothing.
            if byte == quote {
                self.settle(output)
            } else {
                self.release(output)
            }
            self.state = State::Plain;
            return output.extend_from_slice(&[byte]);
        }
        let escapes = byte == b'\\' && !escaped;
        self.state = State::String { quote, is_url, escaped: escapes };
        if is_url { self.hold(byte, escapes, output) } else { output.extend_from_slice(&[byte]) }
    }

    fn bare(&mut self, byte: u8, escaped: bool, output: &mut BytesMut) {
        if !escaped && (byte == b')' || byte.is_ascii_whitespace()) {
            self.settle(output);
            self.state = if byte == b')' { State::Plain } else { State::Url };
            return output.extend_from_slice(&[byte]);
        }
        let escapes = byte == b'\\' && !escaped;
        self.state = State::Bare { escaped: escapes };
        // A quote or bracket makes it a bad URL.
        self.hold(byte, escapes || matches!(byte, b'"' | b'\'' | b'('), output);
    }

    fn hold(&mut self, byte: u8, gives_up: bool, output: &mut BytesMut) {
        if gives_up || self.held.len() >= URL_MAX {
            self.release(output);
        }
        if self.passing { output.extend_from_slice(&[byte]) } else { self.held.push(byte) }
    }

    /// The URL is complete.
    fn settle(&mut self, output: &mut BytesMut) {
        let repaired = std::str::from_utf8(&self.held).ok().and_then(|url| self.links.repair(url));
        match repaired {
            Some(repaired) => output.extend_from_slice(repaired.as_bytes()),
            None => output.extend_from_slice(&self.held),
        }
        self.held.clear();
        self.passing = false;
    }
}

impl Filter for StyleLinks {
    fn push(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), Fault> {
        self.take(input, output);
        Ok(())
    }

    fn flush(&mut self, _output: &mut BytesMut) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, output: &mut BytesMut) -> Result<(), Fault> {
        self.release(output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::links::{LinkRule, Place};

    fn links() -> Arc<Links> {
        let from = Place::parse("http://old.example").expect("a place");
        Arc::new(Links::new(vec![LinkRule::Move { from, to: "https://new.example".into() }]).expect("settled"))
    }

    fn repaired(text: &[u8], size: usize) -> Vec<u8> {
        let (mut style, mut output) = (StyleLinks::new(links()), BytesMut::new());
        for piece in text.chunks(size) {
            style.push(piece, &mut output).expect("it never fails");
        }
        style.finish(&mut output).expect("it never fails");
        output.to_vec()
    }

    #[test]
    fn urls_are_told_from_what_looks_like_them() {
        let old = "http://old.example/a";
        for (text, changes) in [
            ("a{b:url(OLD)}", true),
            ("a{b:URL( 'OLD' )}", true),
            ("a{b:url(\n\"OLD\"\n) c}", true),
            ("@import \"OLD\" screen;", true),
            ("@IMPORT/**/'OLD';", true),
            ("@import url(OLD);", true),
            ("a{b:url(x) url(OLD)}", true),
            ("a{content:\"OLD\"}", false),
            ("a{content:\"url(OLD)\"}", false),
            ("/* url(OLD) */", false),
            ("a{b:curl(OLD)}", false),
            ("@import x \"OLD\";", false),
            ("@namespace \"OLD\";", false),
            ("a{b:url(OLD", false),
            ("a{b:url('OLD\n')}", false),
            ("a{b:url(\\68ttp://old.example/a)}", false),
            ("a{b:url(x(OLD)}", false),
        ] {
            let input = text.replace("OLD", old);
            let expected = if changes { text.replace("OLD", "https://new.example/a") } else { input.clone() };
            for size in [1, 2, 3, 1000] {
                assert_eq!(String::from_utf8_lossy(&repaired(input.as_bytes(), size)), expected, "by {size}");
            }
        }
        let long = format!("a{{b:url(http://old.example/{})}}", "x".repeat(URL_MAX));
        assert_eq!(repaired(long.as_bytes(), 7), long.as_bytes());
    }

    proptest! {
        #[test]
        fn neither_cuts_nor_repetition_show(
            pieces in proptest::collection::vec(proptest::sample::select(&[
                "url(", ")", "http://old.example/", "'", "\"", "\\", "/*", "*/", "/", "@import", " ", "\n", "a", "(", "{", ";", "é",
            ][..]), 0..30),
            size in 1..9_usize,
        ) {
            let text = pieces.concat();
            let whole = repaired(text.as_bytes(), text.len().max(1));
            prop_assert_eq!(&repaired(text.as_bytes(), size), &whole);
            prop_assert_eq!(repaired(&whole, whole.len().max(1)), whole);
        }

        #[test]
        fn what_names_no_other_place_stays_to_the_byte(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(repaired(&text, 7), text);
        }
    }
}
