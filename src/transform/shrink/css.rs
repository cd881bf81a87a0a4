//! Style sheets without comments and needless white space, by the tokens of CSS Syntax Module Level 3, §4.
//!
//! White space goes altogether only where no grammar of CSS looks at it: beside `{`, `}`, `;` and `,`, beside the colon of
//! a declaration, and at both ends. Everywhere else a run of it becomes one space. The value of a custom property is kept
//! to the byte: scripts can read it. What a browser would have to repair (bad strings and URLs, stray backslashes, blocks
//! that do not close) is refused, and so is an `@charset` that is not the very beginning.

use std::ops::Range;

use super::{Refusal, is_kept_comment};

/// The style sheet with no more white space than it needs.
pub(super) fn shrink(text: &str) -> Result<String, Refusal> {
    let sheet = Sheet::read(text)?;
    let small = sheet.print();
    let again = Sheet::read(&small).map_err(|_| Refusal::Unproven)?;
    if sheet.means_the_same(&again) { Ok(small) } else { Err(Refusal::Unproven) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Identifier, function with its parenthesis, hash, at-keyword, number with its unit, URL: what may grow together with
    /// what follows.
    Word,
    /// A [`Kind::Word`] that opens a block: `name(`.
    Function,
    String,
    /// `{ ( [`
    Open(u8),
    /// `} ) ]`
    Close(u8),
    Colon,
    Semicolon,
    Comma,
    /// Any other single character.
    Delim,
    /// The value of a custom property, with all that is in it.
    Raw,
}

/// A token and what stands before it.
#[derive(Debug)]
struct Token {
    kind: Kind,
    text: Range<usize>,
    /// White space stands before it.
    space: bool,
    /// A comment stands before it.
    comment: bool,
    /// Comments before it that stay.
    kept: Vec<Range<usize>>,
    /// White space before it counts for nothing.
    free: bool,
}

struct Sheet<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    /// Comments behind the last token that stay.
    end: Vec<Range<usize>>,
}

impl<'a> Sheet<'a> {
    fn read(source: &'a str) -> Result<Self, Refusal> {
        if source.contains('\0') {
            return Err(Refusal::Malformed);
        }
        let mut sheet = Scan { bytes: source.as_bytes(), source, at: 0, blocks: Vec::new() }.sheet()?;
        sheet.free_colons();
        sheet.free_punctuation();
        Ok(sheet)
    }

    fn text(&self, range: &Range<usize>) -> &'a str {
        self.source.get(range.clone()).unwrap_or_default()
    }

    /// Marks the white space around the colon of declarations: of those statements in a block that begin with a name and a
    /// colon and end before any `{`.
    fn free_colons(&mut self) {
        let mut begins = true;
        let mut colons = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            if begins
                && token.kind == Kind::Word
                && self.tokens.get(index + 1).is_some_and(|next| next.kind == Kind::Colon)
            {
                let rest = self.tokens.iter().skip(index + 2);
                let end = rest
                    .map(|token| token.kind)
                    .find(|kind| matches!(kind, Kind::Semicolon | Kind::Open(b'{') | Kind::Close(b'}')));
                if matches!(end, Some(Kind::Semicolon | Kind::Close(b'}'))) {
                    colons.push(index + 1);
                }
            }
            begins = matches!(token.kind, Kind::Open(b'{') | Kind::Close(b'}') | Kind::Semicolon);
        }
        for colon in colons {
            for token in self.tokens.iter_mut().skip(colon).take(2) {
                token.free = token.kind != Kind::Raw;
            }
        }
    }

    fn free_punctuation(&mut self) {
        let free = |kind: Kind| matches!(kind, Kind::Open(b'{') | Kind::Close(b'}') | Kind::Semicolon | Kind::Comma);
        let mut before = true;
        for token in &mut self.tokens {
            token.free |= token.kind != Kind::Raw && (before || free(token.kind));
            before = free(token.kind);
        }
    }

    fn print(&self) -> String {
        let mut out = String::with_capacity(self.source.len());
        let mut former = Kind::Semicolon;
        for token in &self.tokens {
            let needed = token.space && !token.free;
            if needed {
                out.push(' ');
            }
            token.kept.iter().for_each(|comment| out.push_str(self.text(comment)));
            // A comment between two tokens that would be one without it.
            if !needed && token.kept.is_empty() && (token.comment || token.space) && may_join(former, token.kind) {
                out.push_str("/**/");
            }
            out.push_str(self.text(&token.text));
            former = token.kind;
        }
        self.end.iter().for_each(|comment| out.push_str(self.text(comment)));
        out
    }

    /// The proof: the same tokens in the same bytes, and white space before the same ones wherever it counts.
    fn means_the_same(&self, other: &Sheet<'_>) -> bool {
        let same = |(one, two): (&Token, &Token)| {
            one.kind == two.kind
                && one.free == two.free
                && (one.free || one.space == two.space)
                && self.text(&one.text) == other.text(&two.text)
        };
        self.tokens.len() == other.tokens.len() && self.tokens.iter().zip(&other.tokens).all(same)
    }
}

/// Whether two tokens with nothing between them could be read as something else.
fn may_join(one: Kind, two: Kind) -> bool {
    let punctuation =
        |kind| matches!(kind, Kind::Close(_) | Kind::Semicolon | Kind::Comma | Kind::Colon | Kind::String);
    let ends = punctuation(one) || matches!(one, Kind::Open(_) | Kind::Function);
    // A name and the parenthesis behind it would be a function.
    let begins = punctuation(two) || matches!(two, Kind::Open(b'{' | b'['));
    !(ends || begins)
}

struct Scan<'a> {
    bytes: &'a [u8],
    source: &'a str,
    at: usize,
    /// What closes the blocks that are open.
    blocks: Vec<u8>,
}

impl<'a> Scan<'a> {
    fn sheet(mut self) -> Result<Sheet<'a>, Refusal> {
        let mut tokens: Vec<Token> = Vec::new();
        loop {
            let (space, comment, kept) = self.gap()?;
            let begin = self.at;
            if begin == self.bytes.len() {
                let whole = self.blocks.is_empty();
                return if whole {
                    Ok(Sheet { source: self.source, tokens, end: kept })
                } else {
                    Err(Refusal::Malformed)
                };
            }
            let kind = self.token()?;
            let text = begin..self.at;
            let word = self.source.get(text.clone()).unwrap_or_default();
            if word.eq_ignore_ascii_case("@charset") && begin > 0 {
                return Err(Refusal::Malformed);
            }
            let custom = kind == Kind::Colon
                && tokens.last().is_some_and(|name| {
                    name.kind == Kind::Word && self.source.get(name.text.clone()).unwrap_or_default().starts_with("--")
                });
            tokens.push(Token { kind, text, space, comment, kept, free: false });
            if custom {
                let begin = self.at;
                self.raw()?;
                let text = begin..self.at;
                tokens.push(Token {
                    kind: Kind::Raw,
                    text,
                    space: false,
                    comment: false,
                    kept: Vec::new(),
                    free: false,
                });
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    /// White space and comments.
    fn gap(&mut self) -> Result<(bool, bool, Vec<Range<usize>>), Refusal> {
        let (mut space, mut comment, mut kept) = (false, false, Vec::new());
        loop {
            match self.peek(0) {
                Some(byte) if is_space(byte) => {
                    space = true;
                    self.at += 1;
                }
                Some(b'/') if self.peek(1) == Some(b'*') => {
                    let begin = self.at;
                    let inside = self.source.get(begin + 2..).unwrap_or_default();
                    self.at = begin + 2 + inside.find("*/").ok_or(Refusal::Malformed)? + 2;
                    comment = true;
                    if is_kept_comment(self.source.get(begin..self.at).unwrap_or_default()) {
                        kept.push(begin..self.at);
                    }
                }
                _ => return Ok((space, comment, kept)),
            }
        }
    }

    /// The value of a custom property up to what ends it: `;` or the end of the block it is in.
    fn raw(&mut self) -> Result<(), Refusal> {
        let outer = self.blocks.len();
        loop {
            // What is in a gap stays: it is in the range.
            self.gap()?;
            match self.peek(0) {
                Some(b';') if self.blocks.len() == outer => return Ok(()),
                Some(b'}' | b')' | b']') if self.blocks.len() == outer => return Ok(()),
                None => return Err(Refusal::Malformed),
                Some(_) => {
                    self.token()?;
                }
            }
        }
    }

    fn token(&mut self) -> Result<Kind, Refusal> {
        let Some(byte) = self.peek(0) else { return Err(Refusal::Malformed) };
        match byte {
            b'"' | b'\'' => self.string(byte),
            b'{' | b'(' | b'[' => {
                self.at += 1;
                self.blocks.push(closing(byte));
                Ok(Kind::Open(byte))
            }
            b'}' | b')' | b']' => {
                self.at += 1;
                if self.blocks.pop() == Some(byte) { Ok(Kind::Close(byte)) } else { Err(Refusal::Malformed) }
            }
            b':' => self.single(Kind::Colon),
            b';' => self.single(Kind::Semicolon),
            b',' => self.single(Kind::Comma),
            b'#' if self.peek(1).is_some_and(is_name) || self.escapes(1) => self.marked(),
            b'@' if self.begins_name(1) => self.marked(),
            b'0'..=b'9' | b'+' | b'-' | b'.' if self.begins_number() => self.number(),
            b'<' if self.source.get(self.at..).is_some_and(|rest| rest.starts_with("<!--")) => self.advance(4),
            b'-' if self.source.get(self.at..).is_some_and(|rest| rest.starts_with("-->")) => self.advance(3),
            _ if self.begins_name(0) => self.name_like(),
            b'\\' => Err(Refusal::Malformed),
            _ => self.single(Kind::Delim),
        }
    }

    fn single(&mut self, kind: Kind) -> Result<Kind, Refusal> {
        self.at += 1;
        Ok(kind)
    }

    fn advance(&mut self, bytes: usize) -> Result<Kind, Refusal> {
        self.at += bytes;
        Ok(Kind::Word)
    }

    /// A name behind one character that marks it.
    fn marked(&mut self) -> Result<Kind, Refusal> {
        self.at += 1;
        self.name()?;
        Ok(Kind::Word)
    }

    fn string(&mut self, quote: u8) -> Result<Kind, Refusal> {
        self.at += 1;
        loop {
            match self.peek(0) {
                Some(byte) if byte == quote => return self.single(Kind::String),
                // A line goes on; its end may be two bytes.
                Some(b'\\') if self.peek(1) == Some(b'\r') && self.peek(2) == Some(b'\n') => self.at += 3,
                Some(b'\\') if self.peek(1).is_some() => self.at += 2,
                None | Some(b'\n' | b'\r' | b'\x0c' | b'\\') => return Err(Refusal::Malformed),
                Some(_) => self.at += 1,
            }
        }
    }

    /// §4.3.8: a backslash that is not before a line's end.
    fn escapes(&self, ahead: usize) -> bool {
        self.peek(ahead) == Some(b'\\')
            && self.peek(ahead + 1).is_some_and(|next| !matches!(next, b'\n' | b'\r' | b'\x0c'))
    }

    /// §4.3.9
    fn begins_name(&self, ahead: usize) -> bool {
        match self.peek(ahead) {
            Some(b'-') => {
                self.peek(ahead + 1).is_some_and(|next| next == b'-' || is_name_start(next)) || self.escapes(ahead + 1)
            }
            Some(byte) => is_name_start(byte) || self.escapes(ahead),
            None => false,
        }
    }

    /// §4.3.10
    fn begins_number(&self) -> bool {
        let digit = |ahead| self.peek(ahead).is_some_and(|byte| byte.is_ascii_digit());
        let sign = usize::from(matches!(self.peek(0), Some(b'+' | b'-')));
        digit(sign) || self.peek(sign) == Some(b'.') && digit(sign + 1)
    }

    /// §4.3.11. One white space after a hexadecimal escape is part of it.
    fn name(&mut self) -> Result<(), Refusal> {
        loop {
            if self.peek(0).is_some_and(is_name) {
                self.at += 1;
            } else if self.escapes(0) {
                self.at += 1;
                let digits = (0..6).take_while(|ahead| self.peek(*ahead).is_some_and(|byte| byte.is_ascii_hexdigit()));
                match digits.count() {
                    // The rest of a character of several bytes are name bytes.
                    0 => self.at += 1,
                    digits => {
                        self.at += digits;
                        match (self.peek(0), self.peek(1)) {
                            (Some(b'\r'), Some(b'\n')) => self.at += 2,
                            (Some(byte), _) if is_space(byte) => self.at += 1,
                            (None, _) => return Err(Refusal::Malformed),
                            _ => {}
                        }
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    fn number(&mut self) -> Result<Kind, Refusal> {
        let digits = |scan: &mut Self| {
            while scan.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                scan.at += 1;
            }
        };
        let digit = |scan: &Self, ahead| scan.peek(ahead).is_some_and(|byte| byte.is_ascii_digit());
        self.at += usize::from(matches!(self.peek(0), Some(b'+' | b'-')));
        digits(self);
        if self.peek(0) == Some(b'.') && digit(self, 1) {
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if digit(self, 1 + sign) {
                self.at += 1 + sign;
                digits(self);
            }
        }
        if self.begins_name(0) {
            self.name()?;
        } else if self.peek(0) == Some(b'%') {
            self.at += 1;
        }
        Ok(Kind::Word)
    }

    /// §4.3.4: an identifier, a function, or a URL without quotes.
    fn name_like(&mut self) -> Result<Kind, Refusal> {
        let begin = self.at;
        self.name()?;
        if self.peek(0) != Some(b'(') {
            return Ok(Kind::Word);
        }
        let name = self.source.get(begin..self.at).unwrap_or_default();
        self.at += 1;
        let spaces = (0..).take_while(|ahead| self.peek(*ahead).is_some_and(is_space)).count();
        if name.eq_ignore_ascii_case("url") && !matches!(self.peek(spaces), Some(b'"' | b'\'')) {
            self.at += spaces;
            return self.url();
        }
        self.blocks.push(b')');
        Ok(Kind::Function)
    }

    /// §4.3.6
    fn url(&mut self) -> Result<Kind, Refusal> {
        loop {
            match self.peek(0) {
                Some(b')') => return self.single(Kind::Word),
                Some(byte) if is_space(byte) => {
                    let spaces = (0..).take_while(|ahead| self.peek(*ahead).is_some_and(is_space)).count();
                    self.at += spaces;
                    return if self.peek(0) == Some(b')') { self.single(Kind::Word) } else { Err(Refusal::Malformed) };
                }
                Some(b'\\') if self.escapes(0) => self.at += 2,
                None | Some(b'"' | b'\'' | b'(' | b'\\' | 0..=0x1f | 0x7f) => return Err(Refusal::Malformed),
                Some(_) => self.at += 1,
            }
        }
    }
}

fn closing(open: u8) -> u8 {
    match open {
        b'{' => b'}',
        b'(' => b')',
        _ => b']',
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'-'
}
