//! `[server] [store] [admin] [log] [demo]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Validation;
use crate::config::model::{
    AccessFormat, AccessLogConfig, AdminConfig, DemoConfig, LogConfig, LogTarget, ServerConfig, StoreConfig,
    TemplatePart, UserConfig,
};
use crate::config::raw::{
    RawAccess, RawAccessLog, RawAdmin, RawDemo, RawLevel, RawLog, RawServer, RawStore, RawWorkers,
};
use crate::config::shape::{Given, Place, Setting};
use crate::config::source::Location;
use crate::policy::pool::Address;

/// Where the admin listener is when nothing says so.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Shortest bearer token worth the name.
const TOKEN_BYTES: usize = 16;

/// `[store]`
pub(super) fn store(raw: &RawStore) -> StoreConfig {
    StoreConfig { size: raw.size.0 }
}

/// `[demo]`
pub(super) fn demo(raw: &RawDemo) -> DemoConfig {
    DemoConfig { origins: raw.origins.given().map_or(0, |origins| origins.get()), port: raw.port.get() }
}

impl Validation<'_> {
    /// `[server]`
    pub(super) fn server(&mut self, raw: &RawServer) -> ServerConfig {
        for key in [&raw.state_dir, &raw.user].into_iter().filter_map(Setting::given).filter(|key| key.is_empty()) {
            self.faults.push(key.place.fault("must not be empty", ""));
        }
        ServerConfig {
            workers: match raw.workers.value {
                RawWorkers::Auto => None,
                RawWorkers::Count(count) => Some(count),
            },
            state_dir: raw.state_dir.given().map_or_else(|| self.default_state_dir(), |dir| PathBuf::from(&dir.value)),
            user: raw.user.given().map(|user| UserConfig { name: user.value.clone(), at: user.place.at.clone() }),
            shutdown_grace: raw.shutdown_grace.0,
            max_connections: raw.max_connections.get::<u32>() as usize,
            max_misses: raw.max_misses.given().map(|max| max.get()),
        }
    }

    /// `$XDG_STATE_HOME/tidegate`, else `./.tidegate`.
    fn default_state_dir(&self) -> PathBuf {
        self.files
            .variable("XDG_STATE_HOME")
            .filter(|home| Path::new(home).is_absolute())
            .map_or_else(|| PathBuf::from(".tidegate"), |home| Path::new(&home).join("tidegate"))
    }

    /// `[admin]`
    pub(super) fn admin(&mut self, raw: &RawAdmin) -> AdminConfig {
        let token = raw.token_file.given().and_then(|file| self.token(file));
        let Some(given) = raw.address.given() else {
            return AdminConfig { address: Address::Ip(ADMIN_ADDRESS), at: Location::default(), token };
        };
        let address = match &given.value {
            Address::Unix(path) => Address::Unix(given.place.at.resolve(&path.to_string_lossy())),
            Address::Ip(address) => {
                if !address.ip().is_loopback() && raw.token_file.is_absent() {
                    let help = "add token_file, or use a loopback address";
                    self.faults.push(given.place.fault(format!("= \"{address}\" can be reached by others"), help));
                }
                given.value.clone()
            }
            Address::Name(..) => {
                let what = format!("must be an IP address or a unix socket, got \"{}\"", given.value);
                self.faults.push(given.place.fault(what, "write \"127.0.0.1:9180\" or \"unix:/run/tidegate.sock\""));
                given.value.clone()
            }
        };
        AdminConfig { address, at: given.place.at.clone(), token }
    }

    /// The token in a file, without the white space around it.
    pub(super) fn token(&mut self, file: &Given<String>) -> Option<String> {
        let before = self.faults.iter().count();
        let (path, contents) = self.contents(file);
        if self.faults.iter().count() > before {
            return None;
        }
        let token = String::from_utf8(contents).ok().map(|text| text.trim().to_owned());
        let token = token.filter(|token| token.len() >= TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_graphic()));
        if token.is_none() {
            let what = format!("holds no token: {}", path.display());
            let help = format!("put {TOKEN_BYTES} or more letters, digits and signs in it, without spaces");
            self.faults.push(file.place.fault(what, help));
        }
        token
    }

    /// `[log]`
    pub(super) fn log(&mut self, raw: &RawLog) -> LogConfig {
        let level = match raw.level.value {
            RawLevel::Error => "error",
            RawLevel::Warn => "warn",
            RawLevel::Info => "info",
            RawLevel::Debug => "debug",
        };
        let access = match &raw.access.value {
            RawAccess::Off => None,
            RawAccess::On(access) => Some(self.access_log(access)),
        };
        LogConfig { access, level: level.to_owned() }
    }

    fn access_log(&mut self, raw: &RawAccessLog) -> AccessLogConfig {
        let to = match raw.to.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            file => LogTarget::File(raw.to.place.at.resolve(file)),
        };
        if raw.to.is_empty() {
            self.faults.push(raw.to.place.fault("must not be empty", "use stdout, stderr or a file"));
        }
        let format = match raw.format.as_str() {
            "json" => AccessFormat::Json,
            "combined" => AccessFormat::Combined,
            template => AccessFormat::Template(self.template(template, &raw.format.place)),
        };
        AccessLogConfig { to, format, at: raw.format.place.at.clone() }
    }

    /// A template's text and `{field}`s; `{{` and `}}` stand for themselves.
    fn template(&mut self, template: &str, place: &Place) -> Vec<TemplatePart> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(brace);
            text.push_str(before);
            let doubled = from_brace.starts_with("{{") || from_brace.starts_with("}}");
            let (piece, after) = if doubled {
                text.extend(from_brace.chars().next());
                from_brace.split_at(2)
            } else {
                let (piece, after) = from_brace.split_at(from_brace.find('}').map_or(from_brace.len(), |end| end + 1));
                match piece.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).filter(|name| is_field(name)) {
                    Some(field) => {
                        parts.extend((!text.is_empty()).then(|| TemplatePart::Text(std::mem::take(&mut text))));
                        parts.push(TemplatePart::Field(field.to_owned()));
                    }
                    None => {
                        let help = "write {field}, {req.NAME} or {res.NAME}, and {{ or }} for a brace";
                        self.faults.push(place.fault(format!("has a brace that makes no field: {piece:?}"), help));
                    }
                }
                (piece, after)
            };
            debug_assert!(!piece.is_empty(), "every turn takes something");
            rest = after;
        }
        text.push_str(rest);
        if !parts.iter().any(|part| matches!(part, TemplatePart::Field(_))) {
            self.faults.push(
                place.fault(
                    format!("must be \"json\", \"combined\" or a template with {{field}}s, got {template:?}"),
                    "",
                ),
            );
        }
        parts.extend((!text.is_empty()).then_some(TemplatePart::Text(text)));
        parts
    }
}

/// True for what can be the name of a field of the access record, or a header with `req.` or `res.` before it.
fn is_field(name: &str) -> bool {
    let name = name.strip_prefix("req.").or_else(|| name.strip_prefix("res.")).unwrap_or(name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}
