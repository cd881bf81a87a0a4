//! The filters that a configuration names, and which of them a policy has switched on.

use super::optimise::{Optimiser, Optimisers};

/// One filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Makes smaller bodies of what is stored, in the background.
    Optimiser(Optimiser),
    /// A strong entity-tag for stored answers that have none.
    EtagOwn,
    /// `immutable` for files whose name changes with their content.
    Immutable,
    /// Early hints, learned from the pages that went before.
    HintsPreload,
    /// Pictures that are far down a page are loaded when they come near the screen.
    Lazy,
    /// Scripts of listed hosts run when the page has been read.
    ThirdPartyDefer,
    /// Compression dictionaries.
    Dict,
}

impl Filter {
    /// All there are. The place of each is its bit in [`Filters`].
    pub const ALL: [Self; 10] = [
        Self::Optimiser(Optimiser::JsWs),
        Self::Optimiser(Optimiser::CssWs),
        Self::Optimiser(Optimiser::JsonWs),
        Self::Optimiser(Optimiser::SvgWs),
        Self::EtagOwn,
        Self::Immutable,
        Self::HintsPreload,
        Self::Lazy,
        Self::ThirdPartyDefer,
        Self::Dict,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Optimiser(optimiser) => optimiser.token(),
            Self::EtagOwn => "etag-own",
            Self::Immutable => "immutable",
            Self::HintsPreload => "hints-preload",
            Self::Lazy => "lazy",
            Self::ThirdPartyDefer => "third-party-defer",
            Self::Dict => "dict",
        }
    }

    /// The filter of that name.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.token() == token)
    }

    /// Part of `level = "safe"`: what it does is proven to change no meaning.
    fn is_safe(self) -> bool {
        match self {
            Self::Optimiser(_) | Self::EtagOwn | Self::Immutable | Self::HintsPreload | Self::Dict => true,
            Self::Lazy | Self::ThirdPartyDefer => false,
        }
    }

    /// Works on pages in the stream, like the operator's rules, so that what is stored has been through it.
    #[must_use]
    pub fn is_in_stream(self) -> bool {
        matches!(self, Self::Lazy | Self::ThirdPartyDefer)
    }

    fn bit(self) -> u32 {
        Self::ALL.iter().position(|filter| *filter == self).map_or(0, |place| 1 << place)
    }
}

/// Which filters are on. Looked at on every hit, hence small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filters(u32);

impl Filters {
    /// `level = "safe"`.
    #[must_use]
    pub fn safe() -> Self {
        Filter::ALL.into_iter().filter(|filter| filter.is_safe()).fold(Self::default(), Self::with)
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Filter::ALL.into_iter().fold(Self::default(), Self::with)
    }

    /// Without those that are in `others`.
    #[must_use]
    pub fn minus(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// With one more.
    #[must_use]
    pub fn with(self, filter: Filter) -> Self {
        Self(self.0 | filter.bit())
    }

    /// Without one.
    #[must_use]
    pub fn without(self, filter: Filter) -> Self {
        Self(self.0 & !filter.bit())
    }

    /// Whether it is on.
    #[must_use]
    pub fn contains(self, filter: Filter) -> bool {
        self.0 & filter.bit() != 0
    }

    /// Those that work on stored bodies in the background.
    #[must_use]
    pub fn optimisers(self) -> Optimisers {
        Optimiser::ALL
            .into_iter()
            .filter(|optimiser| self.contains(Filter::Optimiser(*optimiser)))
            .fold(Optimisers::default(), Optimisers::with)
    }

    /// True when something must be known of stored bodies that only reading them tells.
    #[must_use]
    pub fn study_bodies(self) -> bool {
        self.contains(Filter::EtagOwn) || self.contains(Filter::Immutable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_has_a_name_and_a_bit_of_its_own() {
        let mut on = Filters::default();
        for filter in Filter::ALL {
            assert_eq!(Filter::from_token(filter.token()), Some(filter));
            assert!(!on.contains(filter), "{filter:?}");
            on = on.with(filter);
            assert!(on.contains(filter));
        }
        for optimiser in Optimiser::ALL {
            assert!(Filters::safe().optimisers().contains(optimiser), "{optimiser:?}");
            assert!(!Filters::safe().without(Filter::Optimiser(optimiser)).optimisers().contains(optimiser));
        }
    }
}
