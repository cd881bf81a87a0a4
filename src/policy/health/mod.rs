//! When an endpoint is healthy.

pub mod active;
pub mod slow_start;

use std::time::Duration;

/// `health`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthParams {
    /// `path` of the probe.
    pub path: String,
    /// `interval` between probes of one endpoint.
    pub interval: Duration,
    /// `timeout` of one probe, connect to last byte.
    pub timeout: Duration,
    /// `rise`: successes in a row that make a sick endpoint healthy.
    pub rise: u32,
    /// `fall`: failures in a row that make a healthy endpoint sick.
    pub fall: u32,
    /// `expect`: ranges of statuses that count as success.
    pub expect: Vec<std::ops::RangeInclusive<u16>>,
}
