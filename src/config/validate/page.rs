//! Bodies of local replies: `[errors]` and `respond`.

use std::collections::BTreeMap;
use std::path::Path;

use http::HeaderValue;

use super::Validation;
use crate::config::model::ErrorPage;
use crate::config::shape::{Given, Map, Setting};

/// What a body is when nothing says so.
pub(super) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Validation<'_> {
    /// `[errors]`
    pub(super) fn error_pages(&mut self, raw: &Setting<Map<String>>) -> BTreeMap<u16, ErrorPage> {
        let mut pages = BTreeMap::new();
        for (status, file) in raw.given().map_or(&[][..], |map| &map.0) {
            match status.parse::<u16>() {
                Ok(number) if (400..=599).contains(&number) => {
                    let (path, body) = self.contents(file);
                    let content_type = content_type(&path).to_owned();
                    pages.insert(number, ErrorPage { path, body, content_type });
                }
                _ => self.faults.push(status.place.fault("must be a status from 400 to 599", "")),
            }
        }
        pages
    }

    /// A `content_type` that can be sent.
    pub(super) fn content_type(&mut self, given: &Given<String>) -> String {
        if HeaderValue::from_str(given).is_err() || !given.contains('/') {
            let what = format!("must be a media type, got {:?}", given.value);
            self.faults.push(given.place.fault(what, "write it as \"text/html; charset=utf-8\""));
        }
        given.value.clone()
    }
}

/// Media type by extension; only what one would write a page in.
pub(super) fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        _ => PLAIN_TEXT,
    }
}
