//! Which endpoint of a pool gets an exchange.
//!
//! Two questions, answered apart: who *may* be picked (here), and who of those *is* (one file per algorithm).
//!
//! An endpoint may be picked when its state is up, its weight above zero, it is healthy, not full, and was not tried by
//! this exchange. Backups are asked only when no other endpoint can be picked, tier by tier. A sticky session goes to its endpoint
//! also while that drains, has weight zero or is a backup.
//!
//! Panic: when fewer than the share `panic` of the endpoints that are up (backups not counted) are healthy and no backup
//! is, health is ignored. The few healthy ones would drown under the load of all, and probes that fail everywhere say
//! more about the probe than about the farm. A healthy backup calls panic off: it is there for this.
//!
//! A pick is O(endpoints) and allocates only when their number changes. State is per worker; no worker knows the
//! others' turns.

pub mod hash;
mod least_connections;
pub mod peak_ewma;
mod random_two;
pub mod sticky;
mod weighted_round_robin;

use least_connections::LeastConnections;
use peak_ewma::PeakEwma;
use weighted_round_robin::WeightedRoundRobin;

/// `balance`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Balance {
    /// Smooth weighted round-robin.
    #[default]
    RoundRobin,
    /// Fewest exchanges in flight per unit of weight.
    LeastConnections,
    /// Of two drawn at random, the one with fewer in flight per unit of weight.
    RandomTwo,
    /// Least latency, peaks counting at once, times what is in flight.
    PeakEwma,
    /// The same endpoint for the same key.
    Hash,
}

impl Balance {
    /// The word of `balance`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::RandomTwo => "random-two",
            Self::PeakEwma => "peak-ewma",
            Self::Hash => "hash",
        }
    }
}

/// `state` of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdminState {
    /// Takes traffic when healthy.
    #[default]
    Up,
    /// Finishes what runs, takes nothing new. Weight 0 means the same.
    Drain,
    /// Takes nothing, is not probed.
    Down,
}

impl AdminState {
    /// The word of `state`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

/// What a pick sees of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointView {
    /// `weight`, 0..=1000; in a pool with slow start in thousandths, and less while the endpoint warms up.
    pub weight: u32,
    /// Exchanges in flight over all workers.
    pub in_flight: u32,
    /// `max_connections`; `u32::MAX` = no limit.
    pub max_connections: u32,
    /// The last verdict of the probes; true before the first one.
    pub healthy: bool,
    /// The operator's word.
    pub state: AdminState,
    /// Used only when no endpoint of a lower tier can be; 0 are no backups.
    pub tier: u8,
    /// Already tried by this exchange.
    pub tried: bool,
    /// Estimated time to a response head in microseconds, 0 = nothing known; `PeakEwma` reads it.
    pub latency: u32,
    /// A number made of the endpoint's address, the same everywhere; `Hash` reads it.
    pub seed: u64,
}

/// What a pick goes by, besides the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct PickFacts {
    /// `panic` as a share 0..=1.
    pub panic: f64,
    /// Any number.
    pub random: u64,
    /// What `Hash` goes by; `None` = any endpoint will do.
    pub key: Option<u64>,
    /// Where the client's session is: taken if at all possible.
    pub stay: Option<usize>,
}

/// Why nobody was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoEndpoint {
    /// Every endpoint is down, draining or unhealthy (and health is not being ignored).
    NoneHealthy,
    /// Every usable endpoint is at `max_connections`, or the pool at its own bound.
    AllFull,
    /// Every usable endpoint was tried already.
    AllTried,
    /// Too many already wait for one.
    QueueFull,
    /// None came free in time.
    QueueTimeout,
    /// Too much is under way with the whole farm.
    Shed,
}

impl NoEndpoint {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NoneHealthy => "none_healthy",
            Self::AllFull => "all_full",
            Self::AllTried => "all_tried",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Shed => "shed",
        }
    }
}

/// The algorithm of `balance` and its state: one per pool and worker.
#[derive(Debug)]
pub struct Picker(Algorithm);

#[derive(Debug)]
enum Algorithm {
    RoundRobin(WeightedRoundRobin),
    LeastConnections(LeastConnections),
    RandomTwo,
    PeakEwma(PeakEwma),
    Hash,
}

impl Picker {
    /// A picker that has picked nobody yet.
    #[must_use]
    pub fn new(balance: Balance) -> Self {
        Self(match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(WeightedRoundRobin::default()),
            Balance::LeastConnections => Algorithm::LeastConnections(LeastConnections::default()),
            Balance::RandomTwo => Algorithm::RandomTwo,
            Balance::PeakEwma => Algorithm::PeakEwma(PeakEwma::default()),
            Balance::Hash => Algorithm::Hash,
        })
    }

    /// The index into `views` of the endpoint that gets the exchange. `views` may be another list than last time.
    ///
    /// # Errors
    /// Why nobody could be picked; of the reasons that hold, the one that waiting or another attempt may mend first.
    pub fn pick(&mut self, views: &[EndpointView], facts: &PickFacts) -> Result<usize, NoEndpoint> {
        let ignore_health = panics(views, facts.panic);
        let usable = |view: &EndpointView| view.is_up() && (view.healthy || ignore_health);
        let stays = |view: &EndpointView| {
            view.state != AdminState::Down && (view.healthy || ignore_health) && !view.tried && !view.is_full()
        };
        if let Some(index) = facts.stay
            && views.get(index).is_some_and(stays)
        {
            return Ok(index);
        }
        let mut next = Some(0);
        while let Some(tier) = next {
            let may = |view: &EndpointView| view.tier == tier && usable(view) && !view.tried && !view.is_full();
            if let Some(index) = self.choose(views, may, facts) {
                return Ok(index);
            }
            next = views.iter().map(|view| view.tier).filter(|further| *further > tier).min();
        }
        Err(if !views.iter().any(usable) {
            NoEndpoint::NoneHealthy
        } else if views.iter().any(|view| usable(view) && !view.tried) {
            NoEndpoint::AllFull
        } else {
            NoEndpoint::AllTried
        })
    }

    fn choose(
        &mut self,
        views: &[EndpointView],
        may: impl Fn(&EndpointView) -> bool,
        facts: &PickFacts,
    ) -> Option<usize> {
        match &mut self.0 {
            Algorithm::RoundRobin(algorithm) => algorithm.choose(views, may),
            Algorithm::LeastConnections(algorithm) => algorithm.choose(views, may),
            Algorithm::RandomTwo => random_two::choose(views, may, facts.random),
            Algorithm::PeakEwma(algorithm) => algorithm.choose(views, may),
            Algorithm::Hash => hash::choose(views, may, facts.key.unwrap_or(facts.random)),
        }
    }
}

/// Whether health is being ignored: also what `/status` shows of a pool.
#[must_use]
pub fn panics(views: &[EndpointView], panic: f64) -> bool {
    let (mut up, mut healthy) = (0_u32, 0_u32);
    for view in views.iter().filter(|view| view.is_up()) {
        match (view.tier, view.healthy) {
            (1.., true) => return false,
            (1.., false) => {}
            (0, is_healthy) => {
                up += 1;
                healthy += u32::from(is_healthy);
            }
        }
    }
    f64::from(healthy) < panic * f64::from(up)
}

impl EndpointView {
    fn is_up(&self) -> bool {
        self.state == AdminState::Up && self.weight > 0
    }

    fn is_full(&self) -> bool {
        self.in_flight >= self.max_connections
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn up(weight: u32) -> EndpointView {
        EndpointView {
            weight,
            in_flight: 0,
            max_connections: u32::MAX,
            healthy: true,
            state: AdminState::Up,
            tier: 0,
            tried: false,
            latency: 0,
            seed: u64::from(weight),
        }
    }

    fn facts(panic: f64) -> PickFacts {
        PickFacts { panic, random: 0x5eed, key: None, stay: None }
    }

    fn sick() -> EndpointView {
        EndpointView { healthy: false, ..up(1) }
    }

    fn backup(view: EndpointView) -> EndpointView {
        EndpointView { tier: 1, ..view }
    }

    /// A backup of backups; there is none between.
    fn third(view: EndpointView) -> EndpointView {
        EndpointView { tier: 7, ..view }
    }

    fn tried(view: EndpointView) -> EndpointView {
        EndpointView { tried: true, ..view }
    }

    fn full(view: EndpointView) -> EndpointView {
        EndpointView { in_flight: 5, max_connections: 5, ..view }
    }

    const ALL: [Balance; 5] =
        [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, Balance::PeakEwma, Balance::Hash];

    #[test]
    fn who_may_be_picked() {
        let drain = EndpointView { state: AdminState::Drain, ..up(1) };
        let down = EndpointView { state: AdminState::Down, ..up(1) };
        for (views, panic, expected) in [
            (vec![], 0.5, Err(NoEndpoint::NoneHealthy)),
            (vec![up(1)], 0.5, Ok(0)),
            (vec![up(0), drain, down, up(1)], 0.5, Ok(3)),
            (vec![up(0), drain, down], 1.0, Err(NoEndpoint::NoneHealthy)),
            (vec![sick(), up(1)], 0.5, Ok(1)),
            (vec![sick(), sick()], 0.0, Err(NoEndpoint::NoneHealthy)),
            (vec![tried(sick()), sick()], 0.5, Ok(1)),
            (vec![tried(up(1)), sick(), sick()], 0.34, Ok(1)),
            (vec![tried(up(1)), sick(), sick()], 0.33, Err(NoEndpoint::AllTried)),
            (vec![tried(up(1)), sick(), down, down], 0.5, Err(NoEndpoint::AllTried)),
            (vec![backup(up(1)), up(1)], 0.5, Ok(1)),
            (vec![backup(up(1)), full(up(1))], 0.5, Ok(0)),
            (vec![backup(up(1)), tried(up(1))], 0.5, Ok(0)),
            (vec![backup(up(1)), sick()], 0.5, Ok(0)),
            (vec![third(up(1)), backup(up(1)), full(up(1))], 0.5, Ok(1)),
            (vec![third(up(1)), backup(tried(up(1))), sick()], 0.5, Ok(0)),
            (vec![backup(sick()), sick()], 0.5, Ok(1)),
            (vec![backup(sick()), tried(sick())], 0.5, Ok(0)),
            (vec![full(up(1)), tried(up(1))], 0.5, Err(NoEndpoint::AllFull)),
            (vec![full(tried(up(1))), tried(up(1))], 0.5, Err(NoEndpoint::AllTried)),
        ] {
            for balance in ALL {
                assert_eq!(Picker::new(balance).pick(&views, &facts(panic)), expected, "{balance:?} {panic} {views:?}");
            }
        }
    }

    #[test]
    fn a_session_stays_as_long_as_its_endpoint_can_answer() {
        let state = |state| EndpointView { state, ..up(1) };
        for (own, expected) in [
            (up(1), 0),
            (up(0), 0),
            (state(AdminState::Drain), 0),
            (backup(up(1)), 0),
            (state(AdminState::Down), 1),
            (sick(), 1),
            (tried(up(1)), 1),
            (full(up(1)), 1),
        ] {
            let views = [own, up(1000), up(1000)];
            for balance in [Balance::RoundRobin, Balance::LeastConnections] {
                let facts = PickFacts { stay: Some(0), ..facts(0.5) };
                assert_eq!(Picker::new(balance).pick(&views, &facts), Ok(expected), "{balance:?} {own:?}");
            }
        }
        let gone = PickFacts { stay: Some(9), ..facts(0.5) };
        assert_eq!(Picker::new(Balance::RoundRobin).pick(&[up(1)], &gone), Ok(0));
    }

    fn any_view() -> impl Strategy<Value = EndpointView> {
        let state = prop_oneof![4 => Just(AdminState::Up), 1 => Just(AdminState::Drain), 1 => Just(AdminState::Down)];
        (0..4_u32, 0..4_u32, 1..5_u32, any::<bool>(), state, 0..3_u8, any::<bool>()).prop_map(
            |(weight, in_flight, max_connections, healthy, state, tier, tried)| EndpointView {
                weight,
                in_flight,
                max_connections,
                healthy,
                state,
                tier,
                tried,
                latency: in_flight * 7,
                seed: u64::from(weight),
            },
        )
    }

    /// xorshift: the same numbers in every run.
    struct Seeded(u64);

    impl Seeded {
        fn facts(&mut self) -> PickFacts {
            self.below(1);
            PickFacts { random: self.0, ..facts(0.0) }
        }

        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).expect("31 bits") % bound
        }
    }

    /// A farm under load whose endpoints fall sick and recover, then a quiet stretch: nobody is overfilled or picked
    /// while sick, and what came before leaves no trace in the shares.
    #[test]
    fn a_farm_with_failures_settles_to_its_weights() {
        const WEIGHTS: [u32; 4] = [1, 2, 3, 4];
        for balance in ALL {
            let mut seeded = Seeded(0x5eed);
            let mut picker = Picker::new(balance);
            let mut farm: Vec<_> =
                WEIGHTS.iter().map(|&weight| EndpointView { max_connections: 20, ..up(weight) }).collect();
            for _ in 0..5000 {
                match seeded.below(10) {
                    0 => farm[seeded.below(4)].healthy ^= true,
                    1..=4 => {
                        let ended = seeded.below(4);
                        farm[ended].in_flight = farm[ended].in_flight.saturating_sub(1);
                    }
                    _ => {
                        if let Ok(pick) = picker.pick(&farm, &seeded.facts()) {
                            assert!(farm[pick].healthy && farm[pick].in_flight < 20, "{balance:?} {farm:?}");
                            farm[pick].in_flight += 1;
                        }
                    }
                }
            }
            for view in &mut farm {
                *view = EndpointView { healthy: true, in_flight: 0, max_connections: u32::MAX, ..*view };
            }
            for _ in 0..1000 {
                let pick = picker.pick(&farm, &seeded.facts()).expect("all are well");
                farm[pick].in_flight += 1;
            }
            for view in &farm {
                let fair = view.weight * 100;
                assert!(view.in_flight.abs_diff(fair) <= 25, "{balance:?} {farm:?}");
            }
        }
    }

    proptest! {
        /// A pool that changes in every way between picks: what is picked is always allowed, and somebody is picked
        /// whenever anybody is.
        #[test]
        fn picks_are_allowed(pools in proptest::collection::vec(proptest::collection::vec(any_view(), 0..6), 1..8)) {
            for balance in ALL {
                let mut picker = Picker::new(balance);
                for views in &pools {
                    let ignored = panics(views, 0.5);
                    let may = |view: &EndpointView| {
                        view.state == AdminState::Up
                            && view.weight > 0
                            && (view.healthy || ignored)
                            && !view.tried
                            && view.in_flight < view.max_connections
                    };
                    match picker.pick(views, &facts(0.5)) {
                        Ok(index) => {
                            prop_assert!(may(&views[index]));
                            prop_assert!(!views.iter().any(|view| view.tier < views[index].tier && may(view)));
                        }
                        Err(_) => prop_assert!(!views.iter().any(may)),
                    }
                }
            }
        }
    }
}
