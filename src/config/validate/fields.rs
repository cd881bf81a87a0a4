//! Header edits of a route.

use http::{HeaderName, HeaderValue, header};

use super::Validation;
use crate::config::shape::{Given, List, Map, Place, Setting};
use crate::config::units::parse_header_name;
use crate::policy::fields::FieldEdits;

/// Which message is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// On its way to the origin.
    Request,
    /// On its way to the client.
    Response,
}

impl Validation<'_> {
    /// `set` and `remove`.
    pub(super) fn field_edits(
        &mut self,
        set: &Setting<Map<String>>,
        remove: &Given<List<HeaderName>>,
        message: Message,
    ) -> FieldEdits {
        for name in &remove.0 {
            self.editable(&name.value, &name.place, name.value == header::HOST);
        }
        let mut edits = FieldEdits { remove: remove.values().cloned().collect(), set: Vec::new() };
        for (name, value) in set.given().map_or(&[][..], |map| &map.0) {
            let parsed = parse_header_name(name);
            let sent = HeaderValue::from_bytes(value.as_bytes());
            match (parsed, sent) {
                (Ok(header), Ok(sent)) => {
                    self.editable(&header, &name.place, header == header::HOST && message == Message::Response);
                    if edits.set.iter().any(|(earlier, _)| *earlier == header) {
                        self.faults.push(name.place.fault("is set twice", "header names do not differ by case"));
                    }
                    edits.set.push((header, sent));
                }
                (Err(refused), _) => self.faults.push(name.place.fault(refused.what, refused.help)),
                (_, Err(_)) => {
                    let what = format!("must be a header value, got {:?}", value.value);
                    self.faults.push(value.place.fault(what, "it may have no control characters"));
                }
            }
        }
        edits
    }

    /// Reports a header that is not the operator's to edit.
    fn editable(&mut self, name: &HeaderName, place: &Place, refuse_host: bool) {
        if refuse_host {
            self.faults
                .push(place.fault("cannot be edited: host is needed", "set it in request.set, or host of the pool"));
        } else if is_framing(name) {
            let what = format!("cannot be edited: {name} belongs to the connection");
            self.faults.push(place.fault(what, "Tidegate writes it for each connection"));
        }
    }
}

/// True for what says how a message travels on one connection (RFC 9110 §7.6.1, RFC 9112 §6).
fn is_framing(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}
