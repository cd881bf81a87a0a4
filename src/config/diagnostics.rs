//! What is wrong with a configuration, and how to mend it.
//!
//! A fault reads the same in the log, in `status` and in `tidegate check`:
//!
//! ```text
//! conf.d/pools.toml:12:33: pool "web" endpoint 2: weight must be 0..=1000, got -1
//! 12 |   { address = "b:80", weight = -1 },
//!    |                                ^^
//!   help: use 0 to drain the endpoint
//! ```
//!
//! A warning says `warning:` after the position. Faults are collected, never thrown one by one, and listed in the order
//! of the files.

use std::fmt;

use serde_json::json;

use super::source::Location;

/// Longest piece of a source line that is shown; a minified line would bury the caret.
const SHOWN_CHARACTERS: usize = 160;

/// Whether the configuration can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, though it hardly says what the operator meant.
    Warning,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Whether it stops the configuration from being used.
    pub severity: Severity,
    /// Where it stands.
    pub at: Location,
    /// What is wrong, one line.
    pub message: String,
    /// How to mend it, one line.
    pub help: Option<String>,
    /// The other place that has to do with it, and what it is.
    pub related: Option<(Location, String)>,
}

impl Diagnostic {
    /// An error; an empty `help` means there is no advice to give.
    #[must_use]
    pub fn at(at: &Location, message: impl Into<String>, help: impl Into<String>) -> Self {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        Self { severity: Severity::Error, at: at.clone(), message: message.into(), help, related: None }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(at: &Location, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::at(at, message, help) }
    }

    /// Adds the other place.
    #[must_use]
    pub fn related(mut self, at: &Location, what: impl Into<String>) -> Self {
        self.related = Some((at.clone(), what.into()));
        self
    }

    /// The same for programs: `{severity, file, line, column, message, help, related}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (line, column) = self.at.line_column().unzip();
        json!({
            "severity": severity,
            "file": self.at.path().display().to_string(),
            "line": line,
            "column": column,
            "message": self.message,
            "help": self.help,
            "related": self.related.as_ref().map(|(at, message)| {
                let (line, column) = at.line_column().unzip();
                json!({ "file": at.path().display().to_string(), "line": line, "column": column, "message": message })
            }),
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.severity == Severity::Warning { "warning: " } else { "" };
        writeln!(f, "{}: {label}{}", self.at, self.message)?;
        write_excerpt(f, &self.at)?;
        if let Some((at, what)) = &self.related {
            writeln!(f, "  {at}: {what}")?;
            write_excerpt(f, at)?;
        }
        self.help.as_ref().map_or(Ok(()), |help| writeln!(f, "  help: {help}"))
    }
}

/// Writes the source line with its number, and carets under what is pointed at (up to the end of the line).
fn write_excerpt(f: &mut fmt::Formatter<'_>, at: &Location) -> fmt::Result {
    let Some((number, column)) = at.line_column() else { return Ok(()) };
    let line = at.text().lines().nth(number - 1).unwrap_or_default();
    let hidden = column.saturating_sub(SHOWN_CHARACTERS / 2) * usize::from(line.chars().count() > SHOWN_CHARACTERS);
    let shown: String = line.chars().skip(hidden).take(SHOWN_CHARACTERS).collect();
    // Tabs stay tabs, so that the carets stand under their text whatever the terminal makes of a tab.
    let before = column - 1 - hidden;
    let blank: String = shown.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let pointed = at.excerpt().lines().next().unwrap_or_default().chars().count();
    let carets = "^".repeat(pointed.min(shown.chars().count().saturating_sub(before)).max(1));
    writeln!(f, "{number} | {shown}")?;
    writeln!(f, "{:width$} | {blank}{carets}", "", width = number.to_string().len())
}

/// All that was found, in the order of the files.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds several.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(diagnostics);
    }

    /// True when nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Errors and warnings apart, each in the order of the files; what was found at one place twice is listed once.
    #[must_use]
    pub(super) fn split(mut self) -> (Self, Self) {
        self.0.sort_by_key(|diagnostic| diagnostic.at.position());
        self.0.dedup_by(|a, b| a.message == b.message && a.at.position() == b.at.position());
        let (errors, warnings) = self.0.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
        (Self(errors), Self(warnings))
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|diagnostic| write!(f, "{diagnostic}"))
    }
}

/// `did you mean "pool"?` when one of `known` is close to `typed`; else the list of what is known, while it is short.
#[must_use]
pub(super) fn suggest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    /// Longer lists help nobody.
    const LISTED: usize = 24;
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(typed, known.iter().copied()) {
        Some(name) => did_you_mean(name),
        None if known.is_empty() || known.len() > LISTED => String::new(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The remedy for a word that was almost `name`.
#[must_use]
pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean \"{name}\"?")
}

/// The one of `known` that is closest to `typed`, with no more than a third of its letters wrong: more, and it would be
/// a guess.
#[must_use]
pub(super) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = known.into_iter().map(|name| (distance(typed, name), name)).min()?;
    (distance <= typed.chars().count().max(3) / 3).then_some(name)
}

/// Number of letters to insert, remove, change or swap with a neighbour to turn `a` into `b`; case and `-` against `_`
/// cost nothing.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> { text.to_lowercase().replace('-', "_").chars().collect() };
    let (a, b) = (letters(a), letters(b));
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let cell = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let changed = cell(&row, j) + usize::from(from != to);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            let swap = if swapped { cell(&above, j - 1) + 1 } else { usize::MAX };
            next.push(changed.min(swap).min(cell(&row, j + 1) + 1).min(cell(&next, j) + 1));
        }
        above = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_name_is_suggested_and_a_far_one_is_not() {
        for (typed, expected) in [
            ("wieght", "did you mean \"weight\"?"),
            ("keep-alive", "did you mean \"keep_alive\"?"),
            ("Weight", "did you mean \"weight\"?"),
            ("colour", "known here: weight, keep_alive"),
        ] {
            assert_eq!(suggest(typed, ["weight", "keep_alive"]), expected, "{typed}");
        }
        assert_eq!(suggest("x", []), "");
    }

    #[test]
    fn carets_stand_under_the_text_behind_tabs_and_wide_letters() {
        let file = Location::file("a.toml".as_ref(), "x = 1\n\tä = \"ö\"\n".to_owned(), 0);
        let start = file.text().find('"').unwrap();
        let shown = Diagnostic::at(&file.range(start..start + 4), "bad", "mend it").to_string();
        assert_eq!(shown, "a.toml:2:6: bad\n2 | \tä = \"ö\"\n  | \t    ^^^\n  help: mend it\n");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = Diagnostic::at(&Location::file("a".as_ref(), text, 0).range(500..501), "bad", "").to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].chars().count(), SHOWN_CHARACTERS + 4);
        assert_eq!(lines[2].find('^'), lines[1].find('X'));
    }
}
