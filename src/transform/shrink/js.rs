//! Scripts without comments and needless white space, by the lexical grammar of ECMAScript (ECMA-262 §12).
//!
//! No parser: the grammar sees a script as its tokens and whether a line ends before each of them (§12.10), so a script
//! whose tokens are the same, byte by byte, and whose line ends are the same wherever the grammar looks at one, is the
//! same script, module or not, and whatever version of the language it is in. A line's end is left out only where no
//! statement can end and no rule asks for it: behind what cannot end an expression, and before what can only go on with
//! one.
//!
//! What the tokenizer cannot decide by tokens alone is refused: a slash behind `}` (block or object?), behind words that
//! are names in one place and operators in another, HTML-like comments (§B.1.1), line ends and white space beyond ASCII.
//! A script that speaks of its own source text is refused as well; comments that are all there is between two braces stay,
//! as the text that some scripts keep in a function and get by its `toString`.

use std::ops::Range;

use super::{Refusal, is_kept_comment};

/// The script with no more white space than it needs.
pub(super) fn shrink(text: &str) -> Result<String, Refusal> {
    if is_introspective(text) {
        return Err(Refusal::Introspective);
    }
    let script = Script::read(text)?;
    let small = script.print();
    // What spaces hid shows now.
    if is_introspective(&small) {
        return Err(Refusal::Introspective);
    }
    let again = Script::read(&small).map_err(|_| Refusal::Unproven)?;
    if script.means_the_same(&again) { Ok(small) } else { Err(Refusal::Unproven) }
}

/// Whether a script may look at its own text.
fn is_introspective(text: &str) -> bool {
    let of_element = text.contains("currentScript")
        && ["textContent", "innerHTML", "innerText", ".text"].iter().any(|name| text.contains(name));
    of_element || text.contains("Function.prototype.toString") || text.contains("Function.toString")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Identifiers, keywords, private names.
    Name,
    Number,
    String,
    Regex,
    /// A template without substitutions, or the last part of one with them.
    TemplateEnd,
    /// The part of a template before a substitution.
    TemplatePart,
    Punctuator,
    /// `#!…` at the beginning.
    Hashbang,
}

/// A token and what stands before it.
#[derive(Debug)]
struct Token {
    kind: Kind,
    text: Range<usize>,
    /// White space or a comment stands before it.
    space: bool,
    /// A line ends before it.
    line: bool,
    /// Comments before it that stay, in their order.
    kept: Vec<Range<usize>>,
}

struct Script<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    /// What follows the last token; its text is empty.
    end: Token,
}

impl<'a> Script<'a> {
    fn read(source: &'a str) -> Result<Self, Refusal> {
        let mut scan = Scan { bytes: source.as_bytes(), source, at: 0, tokens: Vec::new(), open: Vec::new() };
        loop {
            let gap = scan.gap()?;
            if scan.at == scan.bytes.len() {
                let whole = scan.open.is_empty();
                return if whole {
                    Ok(Self { source, tokens: scan.tokens, end: gap })
                } else {
                    Err(Refusal::Malformed)
                };
            }
            scan.token(gap)?;
        }
    }

    fn text(&self, range: &Range<usize>) -> &'a str {
        self.source.get(range.clone()).unwrap_or_default()
    }

    fn print(&self) -> String {
        let mut out = String::with_capacity(self.source.len());
        let mut former: Option<&Token> = None;
        for token in &self.tokens {
            let text = self.text(&token.text);
            let (space, line) = match former {
                None => (false, false),
                Some(former) => {
                    let before = self.text(&former.text);
                    (
                        token.space && may_join(former.kind, before, token.kind, text),
                        token.line && !is_line_free((former.kind, before), (token.kind, text)),
                    )
                }
            };
            self.print_gap(token, space, line, &mut out);
            out.push_str(text);
            former = Some(token);
        }
        if !self.end.kept.is_empty() {
            out.push('\n');
            self.print_gap(&self.end, false, false, &mut out);
        }
        out
    }

    /// What stands between two tokens: the comments that stay, and a line's end or a space where one is needed.
    fn print_gap(&self, token: &Token, space: bool, line: bool, out: &mut String) {
        if token.kept.is_empty() {
            match (line, space) {
                (true, _) => out.push('\n'),
                (false, true) => out.push(' '),
                (false, false) => {}
            }
            return;
        }
        // A slash and a comment would be another comment.
        if out.ends_with('/') {
            out.push(' ');
        }
        let begin = out.len();
        for comment in &token.kept {
            let comment = self.text(comment);
            out.push_str(comment);
            if comment.starts_with("//") {
                out.push('\n');
            }
        }
        if line && !out.get(begin..).is_some_and(|printed| printed.contains('\n')) {
            out.push('\n');
        }
    }

    /// The proof: the same tokens in the same bytes, a line's end before the same ones wherever the grammar looks at it, and
    /// nowhere else than before.
    fn means_the_same(&self, other: &Script<'_>) -> bool {
        if self.tokens.len() != other.tokens.len() {
            return false;
        }
        let mut former: Option<(Kind, &str)> = None;
        self.tokens.iter().zip(&other.tokens).all(|(one, two)| {
            let text = self.text(&one.text);
            let free = former.is_none_or(|former| is_line_free(former, (one.kind, text)));
            former = Some((one.kind, text));
            one.kind == two.kind && text == other.text(&two.text) && (free || one.line == two.line)
        })
    }
}

/// Whether a line's end between two tokens makes no difference to the grammar.
///
/// Behind the first: it can end neither a statement nor a restricted production (§12.10.1). Before the second: it can
/// neither begin a statement, a class element nor an expression, so nothing could end before it; where it is not allowed
/// after the first, it is not allowed with a semicolon between them either. The closing brace allows an end with or
/// without a line's end.
fn is_line_free(one: (Kind, &str), two: (Kind, &str)) -> bool {
    let goes_on = match one.0 {
        Kind::TemplatePart => true,
        Kind::Punctuator => !matches!(one.1, ")" | "]" | "}" | "++" | "--"),
        _ => false,
    };
    let continues = match two.0 {
        Kind::Punctuator => matches!(
            two.1,
            ")" | "]"
                | "}"
                | ","
                | "."
                | "?."
                | "?"
                | ":"
                | "="
                | "=="
                | "==="
                | "!="
                | "!=="
                | "&&"
                | "||"
                | "??"
                | ">"
                | ">="
                | "<="
                | "%"
                | "&"
                | "|"
                | "^"
        ),
        // The end of a substitution.
        Kind::TemplatePart | Kind::TemplateEnd => two.1.starts_with('}'),
        _ => false,
    };
    goes_on || continues
}

/// Whether two tokens with nothing between them could be read as something else. Says so too often rather than too rarely.
fn may_join(one: Kind, before: &str, two: Kind, after: &str) -> bool {
    let (Some(last), Some(first)) = (before.bytes().next_back(), after.bytes().next()) else { return false };
    let word = |byte: u8| is_name(byte) || matches!(byte, b'#' | b'@' | b'\\');
    if word(last) && word(first) {
        return true;
    }
    match (one, two) {
        // Flags.
        (Kind::Regex, _) if word(first) => true,
        (Kind::Number, _) if first == b'.' || word(first) => true,
        // `?.5` is no optional chain, but close to one; a point makes another number.
        (Kind::Punctuator, Kind::Number) => last == b'.' || (last, first) == (b'?', b'.'),
        (Kind::Punctuator, Kind::Regex) => matches!(last, b'/' | b'<'),
        (Kind::Punctuator, Kind::Punctuator) => {
            let operator = |byte| b"+-*/%&|^!=<>?.".contains(&byte);
            let unary = matches!(first, b'!' | b'~' | b'+' | b'-')
                && matches!(last, b'=' | b'&' | b'|' | b'?' | b'>' | b'*' | b'%' | b'^')
                && after != "!="
                && after != "!==";
            operator(last) && operator(first) && !(unary && after.len() == 1)
        }
        _ => false,
    }
}

/// What an open bracket is, for the slash behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// `(` behind `if`, `for`, `while` or `with`: a statement follows its end.
    Head,
    /// Any other `(`.
    Group,
    Bracket,
    Brace,
    /// `${`
    Substitution,
}

struct Scan<'a> {
    bytes: &'a [u8],
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    open: Vec<Open>,
}

impl Scan<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// The token `back` places from the end of what was read: 1 = the last.
    fn former(&self, back: usize) -> Option<(Kind, &str)> {
        let token = self.tokens.get(self.tokens.len().checked_sub(back)?)?;
        Some((token.kind, self.source.get(token.text.clone()).unwrap_or_default()))
    }

    fn push(&mut self, gap: Token, kind: Kind, begin: usize) {
        self.tokens.push(Token { kind, text: begin..self.at, ..gap });
    }

    /// White space and comments, as a token without a text. Where comments are all that a function has in it, they may be
    /// text that it reads from itself, and stay.
    fn gap(&mut self) -> Result<Token, Refusal> {
        let mut gap = Token { kind: Kind::Punctuator, text: 0..0, space: false, line: false, kept: Vec::new() };
        let mut comments = Vec::new();
        loop {
            let begin = self.at;
            match (self.peek(0), self.peek(1)) {
                (Some(b'\n' | b'\r'), _) => {
                    gap.line = true;
                    self.at += 1;
                }
                (Some(b' ' | b'\t' | b'\x0b' | b'\x0c'), _) => self.at += 1,
                (Some(b'/'), Some(b'/')) => {
                    let end = self.rest().find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(self.rest().len());
                    self.at += end;
                }
                (Some(b'/'), Some(b'*')) => {
                    let inside = self.source.get(begin + 2..).unwrap_or_default();
                    self.at = begin + 2 + inside.find("*/").ok_or(Refusal::Malformed)? + 2;
                    let comment = self.source.get(begin..self.at).unwrap_or_default();
                    gap.line |= comment.contains(['\n', '\r', '\u{2028}', '\u{2029}']);
                }
                _ => {
                    // A comment to some readers (§B.1.1), two operators to others.
                    let arrow = self.rest().starts_with("-->") && (gap.line || self.tokens.is_empty());
                    let ambiguous = arrow || self.rest().starts_with("<!--");
                    if ambiguous {
                        return Err(Refusal::Ambiguous);
                    }
                    let alone = self.peek(0) == Some(b'}') && self.former(1) == Some((Kind::Punctuator, "{"));
                    let kept = |comment: &Range<usize>| {
                        alone || is_kept_comment(self.source.get(comment.clone()).unwrap_or_default())
                    };
                    gap.kept = comments.into_iter().filter(kept).collect();
                    return Ok(gap);
                }
            }
            gap.space = true;
            if self.bytes.get(begin) == Some(&b'/') {
                comments.push(begin..self.at);
            }
        }
    }

    fn token(&mut self, gap: Token) -> Result<(), Refusal> {
        let begin = self.at;
        let Some(byte) = self.peek(0) else { return Err(Refusal::Malformed) };
        let kind = match byte {
            b'#' if begin == 0 && self.peek(1) == Some(b'!') => {
                self.at += self.rest().find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(self.rest().len());
                Kind::Hashbang
            }
            b'"' | b'\'' => self.string(byte)?,
            b'`' => self.template()?,
            b'}' if self.open.last() == Some(&Open::Substitution) => {
                self.open.pop();
                self.template()?
            }
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            b'/' => match self.slash(gap.line)? {
                true => self.regex()?,
                false => self.punctuator(),
            },
            b'#' | b'\\' => self.name()?,
            _ if is_name(byte) => self.name()?,
            b'(' | b'[' | b'{' => {
                self.open.push(self.opens(byte));
                self.punctuator()
            }
            b')' | b']' | b'}' => return self.close(gap, byte),
            b'!'..=b'~' => self.punctuator(),
            _ => return Err(Refusal::Malformed),
        };
        self.push(gap, kind, begin);
        Ok(())
    }

    fn opens(&self, byte: u8) -> Open {
        match byte {
            b'[' => Open::Bracket,
            b'{' => Open::Brace,
            _ => {
                let named = match self.former(1) {
                    Some((Kind::Name, "await")) => self.former(2).is_some_and(|former| former == (Kind::Name, "for")),
                    Some((Kind::Name, "if" | "for" | "while" | "with")) => {
                        !matches!(self.former(2), Some((Kind::Punctuator, "." | "?.")))
                    }
                    _ => false,
                };
                if named { Open::Head } else { Open::Group }
            }
        }
    }

    /// A closing bracket; what follows the end of a head may be a statement, which is where a slash begins a regular
    /// expression.
    fn close(&mut self, gap: Token, byte: u8) -> Result<(), Refusal> {
        let begin = self.at;
        let opened = self.open.pop().ok_or(Refusal::Malformed)?;
        let fits = match opened {
            Open::Head | Open::Group => byte == b')',
            Open::Bracket => byte == b']',
            Open::Brace => byte == b'}',
            Open::Substitution => false,
        };
        if !fits {
            return Err(Refusal::Malformed);
        }
        self.at += 1;
        self.push(gap, Kind::Punctuator, begin);
        if opened == Open::Head {
            // Looked at before the next token is read.
            let slash = self.gap_ahead_is_slash()?;
            if slash {
                return Err(Refusal::Ambiguous);
            }
        }
        Ok(())
    }

    /// Whether the next token begins with a slash.
    fn gap_ahead_is_slash(&mut self) -> Result<bool, Refusal> {
        let here = self.at;
        self.gap()?;
        let slash = self.peek(0) == Some(b'/');
        self.at = here;
        Ok(slash)
    }

    /// Whether a slash begins a regular expression (§12.9.5), by what stands before it.
    fn slash(&self, line: bool) -> Result<bool, Refusal> {
        let Some(former) = self.former(1) else { return Ok(true) };
        let before = self.former(2);
        let member = matches!(before, Some((Kind::Punctuator, "." | "?.")));
        match former {
            (Kind::Name, _) if member => Ok(false),
            // Names in one place and operators in another; words that a statement may end with.
            (
                Kind::Name,
                "of" | "yield" | "await" | "async" | "let" | "static" | "get" | "set" | "break" | "continue"
                | "debugger",
            ) => Err(Refusal::Ambiguous),
            // A label, or a name on the line after the statement.
            (Kind::Name, _) if matches!(before, Some((Kind::Name, "break" | "continue"))) => Err(Refusal::Ambiguous),
            // The end of a statement, and no operand.
            (Kind::String, _) if matches!(before, Some((Kind::Name, "import" | "from"))) => Err(Refusal::Ambiguous),
            (Kind::Name, word) => Ok(matches!(
                word,
                "return"
                    | "typeof"
                    | "instanceof"
                    | "in"
                    | "new"
                    | "delete"
                    | "void"
                    | "throw"
                    | "case"
                    | "do"
                    | "else"
                    | "default"
                    | "extends"
            )),
            (Kind::Number | Kind::String | Kind::Regex | Kind::TemplateEnd, _) => Ok(false),
            (Kind::TemplatePart | Kind::Hashbang, _) => Ok(true),
            (Kind::Punctuator, ")" | "]") => Ok(false),
            (Kind::Punctuator, "}") => Err(Refusal::Ambiguous),
            (Kind::Punctuator, "++" | "--") => {
                let operand = matches!(before, Some((Kind::Name, _) | (Kind::Punctuator, ")" | "]")));
                let joined = self.tokens.last().is_some_and(|operator| !operator.line);
                if operand && joined && !line { Ok(false) } else { Err(Refusal::Ambiguous) }
            }
            (Kind::Punctuator, _) => Ok(true),
        }
    }

    fn string(&mut self, quote: u8) -> Result<Kind, Refusal> {
        self.at += 1;
        loop {
            match self.peek(0) {
                Some(byte) if byte == quote => {
                    self.at += 1;
                    return Ok(Kind::String);
                }
                // A line goes on; its end may be two bytes.
                Some(b'\\') if self.peek(1) == Some(b'\r') && self.peek(2) == Some(b'\n') => self.at += 3,
                Some(b'\\') if self.peek(1).is_some() => self.at += 2,
                None | Some(b'\n' | b'\r' | b'\\') => return Err(Refusal::Malformed),
                Some(_) => self.at += 1,
            }
        }
    }

    /// From a backtick, or the brace that ends a substitution, to the next of either.
    fn template(&mut self) -> Result<Kind, Refusal> {
        self.at += 1;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'`'), _) => {
                    self.at += 1;
                    return Ok(Kind::TemplateEnd);
                }
                (Some(b'$'), Some(b'{')) => {
                    self.at += 2;
                    self.open.push(Open::Substitution);
                    return Ok(Kind::TemplatePart);
                }
                (Some(b'\\'), Some(_)) => self.at += 2,
                (None, _) | (Some(b'\\'), None) => return Err(Refusal::Malformed),
                (Some(_), _) => self.at += 1,
            }
        }
    }

    /// §12.9.5: the body does not depend on the flags.
    fn regex(&mut self) -> Result<Kind, Refusal> {
        self.at += 1;
        let mut class = false;
        loop {
            match self.peek(0) {
                Some(b'/') if !class => break,
                Some(b'[') => class = true,
                Some(b']') => class = false,
                Some(b'\\') if !matches!(self.peek(1), None | Some(b'\n' | b'\r')) => self.at += 1,
                None | Some(b'\n' | b'\r' | b'\\') => return Err(Refusal::Malformed),
                Some(_) => {}
            }
            self.at += 1;
        }
        self.at += 1;
        while self.peek(0).is_some_and(is_name) {
            self.at += 1;
        }
        Ok(Kind::Regex)
    }

    /// §12.9.3, generously: letters and digits, one point, the sign of an exponent.
    fn number(&mut self) -> Kind {
        let radix = self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X' | b'b' | b'B' | b'o' | b'O'));
        let mut point = radix;
        loop {
            match self.peek(0) {
                Some(b'.') if !point => point = true,
                Some(b'e' | b'E') if !radix && matches!(self.peek(1), Some(b'+' | b'-')) => {
                    self.at += 1;
                    point = true;
                }
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'_' => {
                    point |= matches!(byte, b'e' | b'E' | b'n')
                }
                _ => return Kind::Number,
            }
            self.at += 1;
        }
    }

    /// §12.7, with or without the mark of a private name. White space and line ends beyond ASCII are none of it.
    fn name(&mut self) -> Result<Kind, Refusal> {
        let begin = self.at;
        self.at += usize::from(self.peek(0) == Some(b'#'));
        loop {
            match self.peek(0) {
                Some(byte) if is_name(byte) => self.at += 1,
                Some(b'\\') if self.peek(1) == Some(b'u') => {
                    self.at += 2;
                    if self.peek(0) == Some(b'{') {
                        self.at += self.rest().find('}').ok_or(Refusal::Malformed)? + 1;
                    }
                }
                _ => break,
            }
        }
        let name = self.source.get(begin..self.at).unwrap_or_default();
        if name.trim_start_matches('#').is_empty() {
            return Err(Refusal::Malformed);
        }
        let foreign = |character: char| !character.is_ascii() && !character.is_alphanumeric();
        if name.contains(foreign) { Err(Refusal::Ambiguous) } else { Ok(Kind::Name) }
    }

    fn punctuator(&mut self) -> Kind {
        const LONG: [&str; 32] = [
            ">>>=", "...", "===", "!==", "**=", "<<=", ">>=", ">>>", "&&=", "||=", "??=", "=>", "==", "!=", "<=", ">=",
            "&&", "||", "??", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", ">>", "**",
        ];
        let rest = self.rest();
        let optional = rest.starts_with("?.") && !self.peek(2).is_some_and(|next| next.is_ascii_digit());
        let long = LONG.iter().find(|long| rest.starts_with(**long)).map_or(1, |long| long.len());
        self.at += if optional { 2 } else { long };
        Kind::Punctuator
    }
}

/// A byte of a name; of characters beyond ASCII each byte counts as one.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}
