//! `[[pool]]`.

use super::{DAY, HOUR, MINUTE, RawCertificate, YEAR};
use crate::config::shape::List;
use crate::config::table::{table, words};
use crate::config::units::{Int, Name, Share, Span};
use crate::policy::pool::Address;

table! {
    /// A group of origin servers.
    RawPool {
        /// Unique; routes name it.
        name: Name [required],
        /// How an endpoint is picked; always by weight.
        balance: RawBalance = RawBalance::RoundRobin,
        /// What balance = "hash" goes by: client-ip, uri, header:NAME or cookie:NAME.
        hash: String,
        /// How long an endpoint that comes back, or is new, takes to get its whole share; 0s is no time at all.
        slow_start: Span<0, HOUR> = Span::seconds(0),
        /// The origin servers. Required unless discover finds them.
        endpoints: List<RawEndpoint, 1>,
        /// Finds further origin servers. Absent: those that are written are all.
        discover: RawDiscover,
        /// DNS servers for the names of this pool, as ip:port. Default: the system's.
        resolver: List<Address, 1>,
        /// What Host the origin sees: preserve (the client's), endpoint (the address as written), or a name.
        host: String = "preserve".to_owned(),
        /// Leads a client back to the endpoint that answered it first. Absent: sessions go anywhere.
        sticky: RawSticky,
        /// Where exchanges wait while all endpoints are full. Absent: they are refused with 503 at once.
        queue: RawQueue,
        /// Exchanges at once, over all endpoints and workers. Absent: no limit.
        max_in_flight: Int<1, 1_000_000>,
        /// Finds out by latency how many exchanges the pool takes at once. Absent: what is written is the limit.
        adaptive: RawAdaptive,
        /// Probes. Absent: every endpoint counts as healthy.
        health: RawHealth,
        /// Takes endpoints out by what the traffic shows. Absent: only probes do.
        outlier: RawOutlier,
        /// Below this share of healthy endpoints health is ignored.
        panic: Share = Share(0.5),
        /// When a failed attempt is repeated on another endpoint.
        retry: RawRetry [nested],
        /// A second attempt beside a slow first one, for safe methods. Absent: none.
        hedge: RawHedge,
        /// How long the origin may take.
        timeouts: RawPoolTimeouts [nested],
        /// Idle connections to the origin, per endpoint and worker.
        keep_alive: RawKeepAlive [nested],
        /// What is spoken to the origin: h2 over TLS by ALPN, else by prior knowledge; auto is what ALPN chooses, and
        /// http/1.1 without TLS.
        protocol: RawOriginProtocol = RawOriginProtocol::Http1,
        /// Tells the origin the client's address ahead of each connection, which then serves that exchange only: v1
        /// or v2. With http/1.1 only. Absent: no.
        send_proxy_protocol: RawSendProxyProtocol,
        /// Encrypts the way to the origin and verifies its certificate. Absent: plain.
        tls: RawPoolTls,
    }
}

words! {
    /// `balance`
    RawBalance {
        "round-robin" => RoundRobin,
        "least-connections" => LeastConnections,
        "random-two" => RandomTwo,
        "peak-ewma" => PeakEwma,
        "hash" => Hash,
    }
}

table! {
    /// A cookie of ours that leads a client back to its endpoint, also while that drains. The farm does not see it.
    RawSticky {
        /// What its name begins with; a few digits of the pool's own follow.
        cookie: String [required],
        /// How long the cookie is good for, from when it is given; 0s is until the browser is closed.
        ttl: Span<0, YEAR> = Span::seconds(3600),
        /// Whether other sites' requests carry it: strict, lax or none.
        same_site: RawSameSite = RawSameSite::Lax,
    }
}

words! {
    /// `same_site`
    RawSameSite {
        "strict" => Strict,
        "lax" => Lax,
        "none" => None,
    }
}

table! {
    /// One line for the pool, first come first served, over all workers; 503 with Retry-After for whom it is no use.
    RawQueue {
        /// Exchanges that wait; one more is refused.
        max: Int<1, 1_000_000> = Int(1000),
        /// How long one waits.
        timeout: Span<10, HOUR> = Span::seconds(5),
    }
}

table! {
    /// How many exchanges the pool takes at once, found out by latency.
    RawAdaptive {
        /// Never fewer; where it begins.
        min: Int<1, 1_000_000> = Int(10),
        /// Never more.
        max: Int<1, 1_000_000> = Int(1000),
    }
}

words! {
    /// `protocol`
    RawOriginProtocol {
        "http/1.1" => Http1,
        "h2" => Http2,
        "auto" => Auto,
    }
}

words! {
    /// `send_proxy_protocol`
    RawSendProxyProtocol {
        "v1" => V1,
        "v2" => V2,
    }
}

table! {
    /// An origin server.
    RawEndpoint {
        /// host:port, [v6]:port or unix:/path. A name is resolved at load and kept up to date.
        address: Address [required],
        /// Share of the traffic relative to the other endpoints; 0 is as state "drain".
        weight: Int<0, 1000> = Int(1),
        /// Exchanges in flight at once, over all workers. Absent: no limit.
        max_connections: Int<1, 1_000_000>,
        /// Used only when no other endpoint can be.
        backup: bool = false,
        /// up, drain (finishes what runs) or down (takes nothing, is not probed).
        state: RawState = RawState::Up,
    }
}

table! {
    /// Where endpoints are found. The last good answer stays until there is another one.
    RawDiscover {
        /// A name and a port, whose A and AAAA records are the endpoints, or a service such as _http._tcp.web.internal,
        /// whose SRV records are: lower priorities first, the others as their backups. This or directory.
        dns: String,
        /// A folder of *.toml files, watched: each is an endpoint (address, weight and so on), or a list of them named
        /// endpoints. This or dns.
        directory: String,
        /// The longest time between two questions. Records that run out sooner are asked for sooner, each second at most.
        interval: Span<50, HOUR> = Span::seconds(10),
        /// Endpoints that are taken; the rest of a larger answer is left off.
        max: Int<1, 1000> = Int(100),
    }
}

table! {
    /// A file of a discover.directory with several endpoints.
    RawEndpoints {
        /// As in a pool.
        endpoints: List<RawEndpoint, 1> [required],
    }
}

words! {
    /// `state`
    RawState {
        "up" => Up,
        "drain" => Drain,
        "down" => Down,
    }
}

table! {
    /// Probes of every endpoint, over the pool's own TLS; an endpoint is up until the first verdict.
    RawHealth {
        /// Path of a GET. This, grpc or tcp.
        path: String,
        /// A service of grpc.health.v1 that must be SERVING; empty is the server as a whole. Over HTTP/2.
        grpc: String,
        /// A connection is enough, with TLS where the pool has it.
        tcp: bool = false,
        /// Time between two probes of one endpoint.
        interval: Span<10, HOUR> = Span::seconds(2),
        /// The same while an endpoint is sick or has just failed. Default: the interval.
        fast_interval: Span<10, HOUR>,
        /// Time for one probe, connect to last byte.
        timeout: Span<10, HOUR> = Span::seconds(1),
        /// Successes in a row that make a sick endpoint healthy.
        rise: Int<1, 100> = Int(2),
        /// Failures in a row that make a healthy endpoint sick.
        fall: Int<1, 100> = Int(3),
        /// Statuses that count as success, such as "200-399" or "200,204,301-302".
        expect: String = "200-399".to_owned(),
        /// Text that must be in the first 64 KiB of the body. Absent: any body will do.
        expect_body: String,
    }
}

table! {
    /// Ejection of endpoints that fail the traffic; they come back by themselves.
    RawOutlier {
        /// Failures in a row that eject an endpoint.
        consecutive_errors: Int<1, 10_000> = Int(5),
        /// Share of failures over 10 s, from 20 attempts on, that ejects as well. Absent: shares are not looked at.
        error_share: Share,
        /// What counts as failure.
        on: List<RawFailing, 1> = List::of([RawFailing::Connect, RawFailing::Reset, RawFailing::Timeout, RawFailing::ServerError]),
        /// How long the first ejection lasts; each that follows soon lasts twice as long, up to 5 minutes.
        eject_for: Span<10, DAY> = Span::seconds(10),
        /// Share of the endpoints in state up that may be out at once.
        max_ejected: Share = Share(0.5),
    }
}

words! {
    /// One of `outlier.on`.
    RawFailing {
        "connect" => Connect,
        "reset" => Reset,
        "timeout" => Timeout,
        "5xx" => ServerError,
    }
}

table! {
    /// When a failed attempt is repeated on another endpoint.
    RawRetry {
        /// Attempts in all; 1 is never to repeat.
        attempts: Int<1, 10> = Int(2),
        /// What is repeated; reset is a connection closed or reset before the response head.
        on: List<RawRetryOn> = List::of([RawRetryOn::Connect, RawRetryOn::Reset]),
        /// Repeated attempts as a share of the pool's traffic over the last seconds; 10 are always allowed. What could not
        /// connect is not charged.
        budget: Share = Share(0.2),
        /// The pause before the second attempt is any part of this, doubled with each further one, up to 1s. What could
        /// not connect is repeated at once.
        backoff: Span<0, MINUTE> = Span::milliseconds(25),
    }
}

words! {
    /// One of `on`.
    RawRetryOn {
        "connect" => Connect,
        "reset" => Reset,
        "timeout" => Timeout,
        "502" => BadGateway,
        "503" => ServiceUnavailable,
        "504" => GatewayTimeout,
    }
}

table! {
    /// A second attempt elsewhere when the first one is slow; whoever answers first wins. Out of retry.budget.
    RawHedge {
        /// How long the first attempt has.
        after: Span<1, MINUTE> [required],
    }
}

table! {
    /// How long the origin may take.
    RawPoolTimeouts {
        /// TCP and TLS together.
        connect: Span<10, HOUR> = Span::seconds(2),
        /// From the last byte sent to the end of the response head.
        first_byte: Span<10, DAY> = Span::seconds(30),
        /// Longest silence inside a body.
        idle: Span<10, DAY> = Span::seconds(30),
        /// The whole exchange with the origin; 0s is no limit.
        total: Span<0, DAY> = Span::seconds(0),
    }
}

table! {
    /// Idle connections to the origin, per endpoint and worker.
    RawKeepAlive {
        /// How many are kept; 0 closes after each exchange.
        idle: Int<0, 10_000> = Int(64),
        /// How long one is kept.
        timeout: Span<10, DAY> = Span::seconds(50),
    }
}

table! {
    /// TLS to the origin.
    RawPoolTls {
        /// Name the origin's certificate must be for. Default: the host of the endpoint's address.
        server_name: String,
        /// PEM file of the authorities that may vouch for the origin. Default: the system's.
        ca: String,
        /// Certificate shown to the origin.
        client: RawCertificate,
        /// Does not verify the origin's certificate.
        insecure: bool = false,
    }
}
