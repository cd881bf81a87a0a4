//! Static SVG without comments and indentation, by the grammar of XML 1.0.
//!
//! What goes: comments, runs of white space inside tags (one space stays), and text that is nothing but white space, except
//! in elements whose text is drawn, spoken or parsed. Attribute values, text and everything else stay to the byte. A
//! picture with scripts, event handlers, foreign content, entities of its own, processing instructions besides the
//! declaration, or `xml:space` is refused, as is one that is not well formed.

use std::ops::Range;

use super::{Refusal, is_kept_comment};

/// The picture with no more white space than it needs.
pub(super) fn shrink(text: &str) -> Result<String, Refusal> {
    // A style may look at whether an element is empty, to which white space counts.
    if text.contains(":empty") {
        return Err(Refusal::Active);
    }
    let pieces = read(text)?;
    let small = print(text, &pieces);
    let again = read(&small).map_err(|_| Refusal::Unproven)?;
    let same = |(one, two): (&Piece, &Piece)| one.kind == two.kind && normal(text, one) == normal(&small, two);
    let kept: Vec<_> = pieces.into_iter().filter(|piece| piece.kept).collect();
    let equal = kept.len() == again.len() && kept.iter().zip(&again).all(same);
    if equal { Ok(small) } else { Err(Refusal::Unproven) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Start, end and empty tags.
    Tag,
    Text,
    Comment,
    /// The XML declaration, a document type, CDATA.
    Other,
}

#[derive(Debug)]
struct Piece {
    kind: Kind,
    text: Range<usize>,
    kept: bool,
}

/// Elements whose white space is drawn, spoken or parsed.
const VERBATIM: [&str; 6] = ["text", "tspan", "textPath", "title", "desc", "style"];
/// Elements that do something.
const ACTIVE: [&str; 4] = ["script", "foreignObject", "handler", "listener"];

fn read(source: &str) -> Result<Vec<Piece>, Refusal> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let (mut at, mut verbatim, mut roots) = (0, 0_usize, 0);
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let (kind, length) = piece(rest)?;
        let text = rest.get(..length).unwrap_or_default();
        let mut kept = true;
        match kind {
            Kind::Comment => kept = verbatim > 0 || text.starts_with("<!--!") || is_kept_comment(text),
            Kind::Text => {
                let blank = text.trim_matches(is_space).is_empty();
                if !blank && open.is_empty() {
                    return Err(Refusal::Malformed);
                }
                kept = !blank || verbatim > 0;
            }
            Kind::Other => judge_other(text, pieces.is_empty(), open.is_empty())?,
            Kind::Tag => {
                let tag = Tag::read(text)?;
                if tag.closes {
                    if open.pop() != Some(tag.name) {
                        return Err(Refusal::Malformed);
                    }
                    verbatim = verbatim.saturating_sub(usize::from(VERBATIM.contains(&local(tag.name))));
                } else {
                    roots += usize::from(open.is_empty());
                    if !tag.empty {
                        open.push(tag.name);
                        verbatim += usize::from(VERBATIM.contains(&local(tag.name)));
                    }
                }
            }
        }
        pieces.push(Piece { kind, text: at..at + length, kept });
        at += length;
    }
    if open.is_empty() && roots == 1 { Ok(pieces) } else { Err(Refusal::Malformed) }
}

/// What begins `rest`, and its length.
fn piece(rest: &str) -> Result<(Kind, usize), Refusal> {
    let until = |end: &str, from: usize| {
        let found = rest.get(from..).and_then(|inside| inside.find(end)).ok_or(Refusal::Malformed)?;
        Ok::<_, Refusal>(from + found + end.len())
    };
    if rest.starts_with("<!--") {
        return Ok((Kind::Comment, until("-->", 4)?));
    }
    if rest.starts_with("<![CDATA[") {
        return Ok((Kind::Other, until("]]>", 9)?));
    }
    if rest.starts_with("<?") {
        return Ok((Kind::Other, until("?>", 2)?));
    }
    if rest.starts_with("<!") {
        return Ok((Kind::Other, until(">", 2)?));
    }
    if !rest.starts_with('<') {
        return Ok((Kind::Text, rest.find('<').unwrap_or(rest.len())));
    }
    let mut quote = None;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            (_, b'<') => return Err(Refusal::Malformed),
            (None, b'>') => return Ok((Kind::Tag, at + 1)),
            _ => {}
        }
    }
    Err(Refusal::Malformed)
}

/// Whether a declaration, document type or CDATA section may stand where it does.
fn judge_other(text: &str, first: bool, outside: bool) -> Result<(), Refusal> {
    if text.starts_with("<![CDATA[") {
        return if outside { Err(Refusal::Malformed) } else { Ok(()) };
    }
    if text.starts_with("<?xml") && text.get(5..).is_some_and(|rest| rest.starts_with(is_space)) {
        let utf8 = !text.contains("encoding") || text.to_ascii_lowercase().contains("utf-8");
        return if first && utf8 { Ok(()) } else { Err(Refusal::Malformed) };
    }
    // An internal subset declares entities, which may be markup.
    if text.starts_with("<!DOCTYPE") && outside && !text.contains('[') { Ok(()) } else { Err(Refusal::Active) }
}

/// A tag, and what of it matters here.
struct Tag<'a> {
    name: &'a str,
    closes: bool,
    empty: bool,
}

impl<'a> Tag<'a> {
    /// Checks that `text`, from `<` to `>`, is a tag, and that it does nothing.
    fn read(text: &'a str) -> Result<Self, Refusal> {
        let inside = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or(Refusal::Malformed)?;
        let (closes, inside) = inside.strip_prefix('/').map_or((false, inside), |rest| (true, rest));
        let (empty, inside) = inside.strip_suffix('/').map_or((false, inside), |rest| (true, rest));
        let end = inside.find(is_space).unwrap_or(inside.len());
        let (name, mut rest) = inside.split_at_checked(end).ok_or(Refusal::Malformed)?;
        if name.is_empty() || name.contains(['"', '\'', '=', '/', '&']) || closes && empty {
            return Err(Refusal::Malformed);
        }
        if ACTIVE.contains(&local(name)) {
            return Err(Refusal::Active);
        }
        loop {
            rest = rest.trim_start_matches(is_space);
            if rest.is_empty() {
                return Ok(Self { name, closes, empty });
            }
            let (attribute, behind) = rest.split_once('=').ok_or(Refusal::Malformed)?;
            let attribute = attribute.trim_end_matches(is_space);
            let malformed =
                attribute.is_empty() || attribute.contains(is_space) || attribute.contains(['"', '\'', '/']);
            if closes || malformed {
                return Err(Refusal::Malformed);
            }
            if attribute.starts_with("on") || attribute == "xml:space" {
                return Err(Refusal::Active);
            }
            let behind = behind.trim_start_matches(is_space);
            let quote = behind.chars().next().filter(|quote| matches!(quote, '"' | '\'')).ok_or(Refusal::Malformed)?;
            let (_, after) = behind.get(1..).and_then(|value| value.split_once(quote)).ok_or(Refusal::Malformed)?;
            if !after.is_empty() && !after.starts_with(is_space) {
                return Err(Refusal::Malformed);
            }
            rest = after;
        }
    }
}

/// A name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

fn print(source: &str, pieces: &[Piece]) -> String {
    pieces.iter().filter(|piece| piece.kept).map(|piece| normal(source, piece)).collect()
}

/// A piece as it is printed: a tag with single spaces outside of its values.
fn normal(source: &str, piece: &Piece) -> String {
    let text = source.get(piece.text.clone()).unwrap_or_default();
    if piece.kind != Kind::Tag {
        return text.to_owned();
    }
    let mut small = String::with_capacity(text.len());
    let (mut quote, mut space) = (None, false);
    for character in text.chars() {
        match quote {
            Some(open) => quote = Some(open).filter(|open| *open != character),
            None if is_space(character) => {
                space = true;
                continue;
            }
            None => {
                if space && !matches!(character, '/' | '>' | '=' | '"' | '\'') && !small.ends_with('=') {
                    small.push(' ');
                }
                quote = Some(character).filter(|character| matches!(character, '"' | '\''));
            }
        }
        space = false;
        small.push(character);
    }
    small
}
