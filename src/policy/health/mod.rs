//! When an endpoint is healthy.

pub mod active;
pub mod grpc;
pub mod outlier;
pub mod slow_start;

use std::time::Duration;

/// `health`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthParams {
    /// What a probe asks, and what passes.
    pub kind: ProbeKind,
    /// `interval` between probes of one endpoint.
    pub interval: Duration,
    /// `fast_interval`: the same while an endpoint is sick or has just failed.
    pub fast_interval: Duration,
    /// `timeout` of one probe, connect to last byte.
    pub timeout: Duration,
    /// `rise`: successes in a row that make a sick endpoint healthy.
    pub rise: u32,
    /// `fall`: failures in a row that make a healthy endpoint sick.
    pub fall: u32,
}

/// How an endpoint is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// A connection, with TLS where the pool has it, and no more.
    Tcp,
    /// GET.
    Http {
        /// `path`
        path: String,
        /// `expect`: ranges of statuses that count as success.
        expect: Vec<std::ops::RangeInclusive<u16>>,
        /// `expect_body`: text that must be in the body; `None` = any body will do.
        expect_body: Option<String>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// `grpc`: the service; empty = the server as a whole.
        service: String,
    },
}

impl ProbeKind {
    /// Why an answer does not pass, as a stable token; `None` = it passes.
    #[must_use]
    pub fn fault(&self, status: u16, body: &[u8]) -> Option<&'static str> {
        let Self::Http { expect, expect_body, .. } = self else { return None };
        if !expect.iter().any(|range| range.contains(&status)) {
            return Some("unexpected_status");
        }
        let text = expect_body.as_deref().unwrap_or_default().as_bytes();
        let found = text.is_empty() || body.windows(text.len()).any(|window| window == text);
        (!found).then_some("unexpected_body")
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeKind;

    #[test]
    fn an_answer_passes_by_status_and_body() {
        let kind = |expect_body: Option<&str>| ProbeKind::Http {
            path: "/".into(),
            expect: vec![200..=299, 404..=404],
            expect_body: expect_body.map(str::to_owned),
        };
        for (expect_body, status, body, expected) in [
            (None, 200, "", None),
            (None, 300, "", Some("unexpected_status")),
            (None, 404, "", None),
            (Some("ready"), 200, "I am ready.", None),
            (Some("ready"), 200, "I am rea", Some("unexpected_body")),
            (Some("ready"), 200, "", Some("unexpected_body")),
            (Some("ready"), 500, "ready", Some("unexpected_status")),
        ] {
            assert_eq!(kind(expect_body).fault(status, body.as_bytes()), expected, "{status} {body}");
        }
        assert_eq!(ProbeKind::Tcp.fault(0, b""), None);
    }
}
