//! Where something stands: a file as it was read, and a range of it.
//!
//! A [`Location`] travels with everything that can still turn out wrong after the text has been read (a certificate that
//! does not match its key, an address that cannot be bound), so that such a fault too is shown where the operator wrote
//! it. It is two words and a counter; the text is kept as long as anything points into it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One configuration file as read.
#[derive(Debug)]
struct Source {
    /// As the operator or an include glob named it.
    path: PathBuf,
    text: String,
    /// Position in the order of reading; faults are listed in this order.
    order: usize,
}

/// A place in a configuration file. Cheap to clone.
///
/// All locations are equal: where an entry stands is no part of what it says, and a pool that merely moved down a line
/// must compare as unchanged on reload.
#[derive(Debug, Clone, Default)]
pub struct Location {
    source: Option<Arc<Source>>,
    /// Bytes of the text; `None` = the file as a whole.
    span: Option<Range<usize>>,
}

impl PartialEq for Location {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Location {}

impl Location {
    /// A file as a whole; `order` is its place in the order of reading.
    #[must_use]
    pub fn file(path: &Path, text: String, order: usize) -> Self {
        Self { source: Some(Arc::new(Source { path: path.to_owned(), text, order })), span: None }
    }

    /// A range of the same file.
    #[must_use]
    pub fn range(&self, span: Range<usize>) -> Self {
        Self { source: self.source.clone(), span: Some(span) }
    }

    /// The file; empty for a value that no file gave.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.source.as_ref().map_or_else(|| Path::new(""), |source| &source.path)
    }

    /// `path` as meant by the file that names it: relative to that file's folder.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.path().parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// Line and column, both from 1, the column in characters; `None` when it is the file as a whole.
    #[must_use]
    pub fn line_column(&self) -> Option<(usize, usize)> {
        let before = self.text().get(..self.span.as_ref()?.start)?;
        let line = before.matches('\n').count() + 1;
        Some((line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1))
    }

    /// The text of the file; empty for a value that no file gave.
    #[must_use]
    pub(super) fn text(&self) -> &str {
        self.source.as_ref().map_or("", |source| &source.text)
    }

    /// The text pointed at; empty when it is the file as a whole.
    #[must_use]
    pub(super) fn excerpt(&self) -> &str {
        self.span.clone().and_then(|span| self.text().get(span)).unwrap_or_default()
    }

    /// Sorts by order of reading, then position.
    #[must_use]
    pub(super) fn position(&self) -> (usize, usize) {
        (self.source.as_ref().map_or(0, |source| source.order), self.start())
    }

    /// First byte of the range; 0 when it is the file as a whole.
    #[must_use]
    pub(super) fn start(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.start)
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path().display())?;
        self.line_column().map_or(Ok(()), |(line, column)| write!(f, ":{line}:{column}"))
    }
}
