//! Paths that are not what they seem: web cache deception, and ways around a path rule.
//!
//! Two readings of one path are the trouble. `/account/x.css` is a style sheet to whoever looks at its end, and the
//! account page to an origin that routes by its beginning; `/account;x/y` and `/account%2Fy` are names of their own to us
//! and `/account/y` to an origin that drops parameters or decodes early. What is guarded here errs towards not storing.

use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::ResponseFacts;

/// Ends of paths that name a file nobody personalises: styles, scripts, pictures, fonts, sound, film, archives, papers.
static STATIC: [&str; 44] = [
    "7z", "aac", "avi", "avif", "bmp", "bz2", "class", "css", "cur", "eot", "exe", "flac", "gif", "gz", "ico", "jar",
    "jpeg", "jpg", "js", "jxl", "mid", "mjs", "mkv", "mov", "mp3", "mp4", "ogg", "otf", "pdf", "png", "rar", "svg",
    "svgz", "tar", "tif", "tiff", "ttf", "wasm", "webm", "webp", "woff", "woff2", "zip", "zst",
];

/// True for a successful answer that declares itself a page or data (HTML, JSON, XML) under a path that ends like a static
/// file. One that declares nothing does not deceive; neither does an error, which is a page under any path. Cost: a look
/// at the end of the path, and nothing more for most.
#[must_use]
pub fn deceives(path: &str, response: &ResponseFacts<'_>) -> bool {
    if !response.status.is_success() || response.status == StatusCode::NO_CONTENT {
        return false;
    }
    let Some(extension) = extension(path) else { return false };
    let Some(declared) = response.headers.get(CONTENT_TYPE) else { return false };
    let declared = declared.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |kind: &str| declared.eq_ignore_ascii_case(kind.as_bytes());
    let ends = |suffix: &[u8]| {
        let end = declared.len().checked_sub(suffix.len()).and_then(|from| declared.get(from..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    let is_xml = is("text/xml") || is("application/xml");
    let is_page = is("text/html") || is("application/xhtml+xml");
    let is_json = is("application/json") || is("text/json") || ends(b"+json");
    // A picture in XML may say no more than that.
    is_page || is_json || is_xml && !extension.starts_with("svg")
}

/// The static extension that the last segment ends with, for somebody who cuts it at a parameter or an escape, or not.
fn extension(path: &str) -> Option<&'static str> {
    let segment = path.rsplit('/').next().unwrap_or_default();
    segment.split([';', '%']).find_map(|piece| {
        let (_, end) = piece.rsplit_once('.')?;
        STATIC.iter().find(|known| known.eq_ignore_ascii_case(end)).copied()
    })
}

/// A normalised path as an origin may read it that decodes early and drops parameters: `%2F` and `%5C` separate, `;` (or
/// `%3B`) and what follows it in a segment is gone, `%3F` and `%23` end it, and so do empty segments. `None` where that
/// makes no difference. (Dot segments in disguise were refused: see `policy::uri`.) Cost: a string, and only where the
/// path has an escape or a parameter.
#[must_use]
pub fn loosest(path: &str) -> Option<String> {
    if !path.contains(['%', ';']) {
        return None;
    }
    let end = path.find("%3F").into_iter().chain(path.find("%23")).min().unwrap_or(path.len());
    let plain = path.get(..end).unwrap_or(path).replace("%2F", "/").replace("%5C", "/").replace("%3B", ";");
    let mut read = String::with_capacity(plain.len());
    for segment in plain.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        if !segment.is_empty() {
            read.push('/');
            read.push_str(segment);
        }
    }
    (read != path).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::headers;

    fn check(path: &str, status: u16, declared: &str) -> bool {
        let now = Clock::System.now();
        let lines = [("content-type", declared)];
        let headers = headers(if declared.is_empty() { &[] } else { &lines }, now);
        let status = StatusCode::from_u16(status).expect("a status");
        deceives(path, &ResponseFacts { status, headers: &headers, sent: now, received: now })
    }

    #[test]
    fn a_page_is_no_static_file() {
        for (path, declared, expected) in [
            ("/account/x.css", "text/html", true),
            ("/account/x.css", "Text/HTML; charset=utf-8", true),
            ("/account/x.CSS", "text/html", true),
            ("/account/x.css", "application/json", true),
            ("/account/x.css", "application/problem+json", true),
            ("/account/x.css", "application/xml", true),
            ("/account;x.css", "text/html", true),
            ("/account%3Bx.css", "text/html", true),
            ("/account%2Fx.css", "text/html", true),
            ("/account/x.css;jsessionid=1", "text/html", true),
            ("/account/x.css%3Fy", "text/html", true),
            ("/account/x.css%0A", "text/html", true),
            ("/account/.css", "text/html", true),
            ("/a.b.woff2", "text/html", true),
            ("/x.css", "text/css", false),
            ("/x.css", "text/plain", false),
            ("/x.css", "", false),
            ("/x.css", "application/octet-stream", false),
            ("/x.svg", "image/svg+xml", false),
            ("/x.svg", "text/xml", false),
            ("/x.svg", "text/html", true),
            ("/x.js", "application/javascript", false),
            ("/x.js", "application/json", true),
            ("/x.json", "application/json", false),
            ("/x.html", "text/html", false),
            ("/x", "text/html", false),
            ("/", "text/html", false),
            ("/css", "text/html", false),
            ("/x.css/page", "text/html", false),
            ("/x.cssx", "text/html", false),
        ] {
            assert_eq!(check(path, 200, declared), expected, "{path} {declared}");
        }
    }

    #[test]
    fn an_error_is_a_page_under_any_path() {
        for (status, expected) in [(200, true), (203, true), (204, false), (301, false), (404, false), (500, false)] {
            assert_eq!(check("/x.css", status, "text/html"), expected, "{status}");
        }
    }

    #[test]
    fn what_origins_may_read() {
        for (path, expected) in [
            ("/account/x", None),
            ("/a%20b", None),
            ("/account;x", Some("/account")),
            ("/account;x=1/y;z", Some("/account/y")),
            ("/account%3Bx/y", Some("/account/y")),
            ("/account%2Fy", Some("/account/y")),
            ("/account%5Cy", Some("/account/y")),
            ("/account%2F%2Fy", Some("/account/y")),
            ("/;/account/y", Some("/account/y")),
            ("/;a/%2Faccount", Some("/account")),
            ("/account%3Fy", Some("/account")),
            ("/account%23y%3F", Some("/account")),
            ("/x%3F/account", Some("/x")),
        ] {
            assert_eq!(loosest(path).as_deref(), expected, "{path}");
        }
    }
}
