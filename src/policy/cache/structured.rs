//! Structured dictionaries (RFC 9651), as far as the fields that are dictionaries need them.

use http::{HeaderMap, HeaderName};

/// What a member of a dictionary is worth, as far as caching goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Boolean(bool),
    Integer(i64),
    /// An inner list: what stands between the parentheses.
    List(&'a str),
    /// Strings, tokens, decimals …
    Other,
}

/// The lines of a field as one text (§4.2); `None` when it is absent, or no ASCII.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    Some(lines.map(|line| line.to_str().ok()).collect::<Option<Vec<_>>>()?.join(","))
}

/// §4.2.2: calls `found` for each member. `None` where the text is not a dictionary.
pub(super) fn members<'a>(text: &'a str, mut found: impl FnMut(&'a str, Item<'a>)) -> Option<()> {
    let mut rest = text.trim_matches(' ');
    if rest.is_empty() {
        return Some(());
    }
    loop {
        let (name, after) = key(rest)?;
        let (value, after) = match after.strip_prefix('=') {
            Some(after) => member_value(after)?,
            None => (Item::Boolean(true), after),
        };
        found(name, value);
        rest = parameters(after)?.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
    }
}

fn key(text: &str) -> Option<(&str, &str)> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'*';
    let more = |byte: u8| first(byte) || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
    text.bytes().next().filter(|byte| first(*byte))?;
    let end = text.bytes().position(|byte| !more(byte)).unwrap_or(text.len());
    text.split_at_checked(end)
}

fn member_value(text: &str) -> Option<(Item<'_>, &str)> {
    let Some(list) = text.strip_prefix('(') else { return bare_item(text) };
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(')') {
            return Some((Item::List(list.get(..list.len() - rest.len())?), after));
        }
        rest = parameters(bare_item(rest)?.1)?;
        if !rest.starts_with([' ', ')']) {
            return None;
        }
    }
}

/// What follows the parameters of an item.
pub(super) fn parameters(mut rest: &str) -> Option<&str> {
    while let Some(after) = rest.strip_prefix(';') {
        let (_, after) = key(after.trim_start_matches(' '))?;
        rest = match after.strip_prefix('=') {
            Some(value) => bare_item(value)?.1,
            None => after,
        };
    }
    Some(rest)
}

fn bare_item(text: &str) -> Option<(Item<'_>, &str)> {
    let until = |end: fn(u8) -> bool| text.bytes().position(end).unwrap_or(text.len());
    match text.bytes().next()? {
        b'?' => {
            let (value, rest) = text.get(1..)?.split_at_checked(1)?;
            Some((
                Item::Boolean(match value {
                    "1" => true,
                    "0" => false,
                    _ => return None,
                }),
                rest,
            ))
        }
        b'-' | b'0'..=b'9' => {
            let (number, rest) = text.split_at_checked(until(|byte| !matches!(byte, b'-' | b'.' | b'0'..=b'9')))?;
            number_item(number).map(|item| (item, rest))
        }
        b'"' => string(text.get(1..)?).map(|rest| (Item::Other, rest)),
        b'%' => string(text.strip_prefix("%\"")?).map(|rest| (Item::Other, rest)),
        b'@' => {
            let (number, rest) =
                text.get(1..)?.split_at_checked(until(|byte| !matches!(byte, b'@' | b'-' | b'0'..=b'9')) - 1)?;
            number_item(number).map(|_| (Item::Other, rest))
        }
        b':' => {
            let (bytes, rest) = text.get(1..)?.split_once(':')?;
            bytes
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
                .then_some((Item::Other, rest))
        }
        first if first.is_ascii_alphabetic() || first == b'*' => {
            let token = |byte: u8| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
            Some((Item::Other, text.get(until(token)..)?))
        }
        _ => None,
    }
}

/// An integer of at most 15 digits, or a decimal of at most 12 and 3.
fn number_item(text: &str) -> Option<Item<'_>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all_digits =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    match digits.split_once('.') {
        Some((whole, part)) => (all_digits(whole, 12) && all_digits(part, 3)).then_some(Item::Other),
        None if all_digits(digits, 15) => text.parse().ok().map(Item::Integer),
        None => None,
    }
}

/// What follows the closing quote of a string.
fn string(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'\\' if escaped => escaped = false,
            _ if escaped => return None,
            b'\\' => escaped = true,
            b'"' => return text.get(at + 1..),
            b' '..=b'~' => {}
            _ => return None,
        }
    }
    None
}
