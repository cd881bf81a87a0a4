//! JSON without white space (RFC 8259). Numbers stay as they are written, members in their order.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Refusal;

/// The text without the white space between its tokens.
pub(super) fn shrink(text: &str) -> Result<String, Refusal> {
    check(text)?;
    let small = squeeze(text);
    check(&small).map_err(|_| Refusal::Unproven)?;
    // White space is all that went: what is left of either without it is the same, byte by byte.
    if small != squeeze(&small) { Err(Refusal::Unproven) } else { Ok(small) }
}

/// `text`, which is JSON, without the white space outside of its strings.
fn squeeze(text: &str) -> String {
    let mut small = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = character == '"';
        }
        small.push(character);
    }
    small
}

/// Whether `text` is JSON that every reader understands alike: no object has two members of one name. Depth is bounded by
/// `serde_json` at 128.
fn check(text: &str) -> Result<(), Refusal> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Value::deserialize(&mut reader).and_then(|_| reader.end());
    read.map_err(|error| if error.to_string().starts_with(TWICE) { Refusal::Active } else { Refusal::Malformed })
}

const TWICE: &str = "two members of one name";

/// A value that was read and found unambiguous; nothing of it is kept.
struct Value;

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<Value>()?.is_some() {}
        Ok(Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom(TWICE));
            }
            members.next_value::<Value>()?;
        }
        Ok(Value)
    }
}
