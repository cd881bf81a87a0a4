//! Text → a tree in which every key and value knows where it stands.
//!
//! This is the only file that knows the `toml` crate. Environment variables are expanded here, in string values only:
//! `${NAME}`, `${NAME:-default}` (used when NAME is unset or empty), and `$${` for a literal `${`. There is no nesting.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostics::{Diagnostic, Diagnostics};
use super::source::Location;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Location,
    pub(super) value: Value,
}

/// What TOML can say.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// What is out of range is the nearest there is: no key allows as much.
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
    /// Was reported already; whoever reads it keeps silent.
    Broken,
}

/// Keys in file order.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) Vec<Entry>);

/// One key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Location,
    pub(super) node: Node,
}

impl Table {
    /// The entry of this key.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }
}

impl Node {
    /// The value as shown behind "got".
    pub(super) fn shown(&self) -> Cow<'static, str> {
        match &self.value {
            Value::Text(text) => Cow::Owned(format!("{text:?}")),
            // As typed: it may have been out of range for the value.
            Value::Integer(_) => Cow::Owned(self.at.excerpt().to_owned()),
            Value::Float(number) => Cow::Owned(number.to_string()),
            Value::Boolean(truth) => Cow::Owned(truth.to_string()),
            Value::Datetime => Cow::Borrowed("a date"),
            Value::Array(_) => Cow::Borrowed("an array"),
            Value::Table(_) => Cow::Borrowed("a table"),
            Value::Broken => Cow::Borrowed("nothing"),
        }
    }
}

/// The table in `file`, or `None` when it is not TOML: what a parser recovers from broken text says little about what
/// was meant.
pub(super) fn parse(
    file: &Location,
    variables: &dyn Fn(&str) -> Option<String>,
    faults: &mut Diagnostics,
) -> Option<Table> {
    let (tree, errors) = DeTable::parse_recoverable(file.text());
    for error in &errors {
        let at = file.range(error.span().unwrap_or(0..0));
        match error.message() {
            "duplicate key" => faults.extend(duplicate(file, tree.get_ref(), &at)),
            message if message.starts_with("string values must be quoted") => {
                let help = format!("write \"{}\"", at.excerpt());
                faults.push(Diagnostic::at(&at, "a string must be quoted", help));
            }
            message => faults.push(Diagnostic::at(&at, message, "")),
        }
    }
    errors.is_empty().then(|| Grower { file, variables, faults }.table(tree.get_ref()))
}

/// The fault of a key that stands a second time at `second`; `None` within a table that is itself there twice, since the
/// keys of both then count as one table's.
fn duplicate(file: &Location, tree: &DeTable<'_>, second: &Location) -> Option<Diagnostic> {
    let (number, _) = second.line_column()?;
    let is_header = file.text().lines().nth(number - 1)?.starts_with('[');
    let header = file.text().lines().take(number).filter(|line| line.starts_with('[')).last();
    let earlier_header = header.and_then(|header| earlier_line(file, header, number));
    if !is_header && earlier_header.is_some() && header.is_some_and(|header| !header.starts_with("[[")) {
        return None;
    }
    let earlier_key = || {
        let mut starts = Vec::new();
        collect_keys(tree, second.excerpt(), &mut starts);
        let start = starts.into_iter().filter(|start| *start < second.start()).max()?;
        Some(file.range(start..start + second.excerpt().len()))
    };
    let fault = Diagnostic::at(second, format!("\"{}\" is defined twice", second.excerpt()), "keep one of them");
    Some(match if is_header { earlier_header } else { earlier_key() } {
        Some(first) => fault.related(&first, "first defined here"),
        None => fault,
    })
}

/// The first line equal to `header`, which stands on line `last` or above; `None` when that is `header` itself.
fn earlier_line(file: &Location, header: &str, last: usize) -> Option<Location> {
    let mut offset = 0;
    let mut found = Vec::new();
    for line in file.text().split_inclusive('\n').take(last) {
        if line.trim_end() == header.trim_end() {
            found.push(file.range(offset..offset + header.trim_end().len()));
        }
        offset += line.len();
    }
    (found.len() > 1).then(|| found.swap_remove(0))
}

/// Start of every key called `name`, at any depth.
fn collect_keys(table: &DeTable<'_>, name: &str, found: &mut Vec<usize>) {
    for (key, value) in table {
        if key.get_ref() == name {
            found.push(key.span().start);
        }
        match value.get_ref() {
            DeValue::Table(inner) => collect_keys(inner, name, found),
            DeValue::Array(items) => {
                items.iter().filter_map(|item| item.get_ref().as_table()).for_each(|t| collect_keys(t, name, found));
            }
            _ => {}
        }
    }
}

/// Turns the parser's tree into ours.
struct Grower<'a> {
    file: &'a Location,
    variables: &'a dyn Fn(&str) -> Option<String>,
    faults: &'a mut Diagnostics,
}

impl Grower<'_> {
    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_at: self.file.range(key.span()),
                node: self.node(value),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_at.start());
        Table(entries)
    }

    fn node(&mut self, node: &Spanned<DeValue<'_>>) -> Node {
        let at = self.file.range(node.span());
        let value = match node.get_ref() {
            DeValue::String(text) => self.text(text, &at),
            DeValue::Integer(number) => Value::Integer(integer(number)),
            DeValue::Float(number) => number.as_str().parse().map_or(Value::Broken, Value::Float),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { at, value }
    }

    fn text(&mut self, text: &str, at: &Location) -> Value {
        match expand(text, self.variables) {
            Ok(expanded) => Value::Text(expanded),
            Err(Unexpanded { piece, message, help }) => {
                // The piece stands in the source as it is, unless it was spelled with escapes.
                let inside = at.excerpt().find(&piece).map(|offset| at.start() + offset);
                let at = inside.map_or_else(|| at.clone(), |start| at.range(start..start + piece.len()));
                self.faults.push(Diagnostic::at(&at, message, help));
                Value::Broken
            }
        }
    }
}

/// The number, or the nearest there is.
fn integer(number: &DeInteger<'_>) -> i64 {
    let nearest = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
    i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(nearest)
}

/// Why a string could not be expanded.
struct Unexpanded {
    piece: String,
    message: String,
    help: String,
}

/// `text` with its environment variables put in.
fn expand(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let (before, from_dollar) = rest.split_at(dollar);
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = from_dollar.get(2..).unwrap_or_default();
            continue;
        }
        out.push_str(before);
        let Some((reference, after)) = from_dollar.get(2..).and_then(|inner| inner.split_once('}')) else {
            return Err(Unexpanded {
                piece: from_dollar.to_owned(),
                message: "${ has no closing }".to_owned(),
                help: "write $${ for a literal ${".to_owned(),
            });
        };
        out.push_str(&value_of(reference, variables)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of what stands between `${` and `}`.
fn value_of(reference: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let (name, default) = reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
    let piece = format!("${{{reference}}}");
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        let message = format!("{name:?} cannot be the name of an environment variable");
        return Err(Unexpanded { piece, message, help: "write $${ for a literal ${".to_owned() });
    }
    match (variables(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unexpanded {
            message: format!("the environment variable {name} is not set"),
            help: format!("set it, or give a default: ${{{name}:-default}}"),
            piece,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_with_defaults_and_escapes() {
        let variables = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain $1 $x", Ok("plain $1 $x")),
            ("<${A}${A}>", Ok("<11>")),
            ("${NO:-d}${EMPTY:-e}${EMPTY}", Ok("de")),
            ("$${A} ${A}", Ok("${A} 1")),
            ("${NO}", Err("${NO}")),
            ("a ${A", Err("${A")),
            ("${a b}", Err("${a b}")),
            ("${}", Err("${}")),
        ] {
            let found = expand(text, &variables);
            assert_eq!(found.as_deref().map_err(|fault| fault.piece.as_str()), expected, "{text}");
        }
    }
}
