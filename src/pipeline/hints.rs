//! Early hints: told to browsers that wait for the farm, learned from the pages that pass.
//!
//! Nothing of it touches a hit. A navigation that goes to the farm is told what the same page named before, and what its
//! answer names is learned in turn.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Mutex;

use http::header::LINK;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::context::Exchange;
use super::watched::{self, Onlooker};
use super::worker::Worker;
use super::workshop::{Workshop, lock};
use crate::body::Response;
use crate::clock::Now;
use crate::policy::filter::Filter;
use crate::policy::hints::{self, Lesson};
use crate::snapshot::Route;
use crate::transform::head::HeadReader;

/// Pages that are remembered. For one more, those go that nobody has asked the farm for since [`TERM`]; where there are
/// none, it is not learned.
const PAGES_MAX: usize = 4096;
/// How long a page is remembered that nobody asks for.
const TERM: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// How often at most the pages are looked through for such: a worker does it, and whoever asks or learns waits.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(60);

/// What was learned. One a process.
#[derive(Debug, Default)]
pub(super) struct Lessons(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    known: HashMap<Box<str>, (Lesson, Now)>,
    swept: Option<Now>,
}

impl Lessons {
    fn told(&self, url: &str) -> Option<HeaderValue> {
        lock(&self.0).known.get(url).and_then(|(lesson, _)| lesson.value().cloned())
    }

    /// Takes in what a page named. One that names nothing is only of interest where more was expected.
    fn observe(&self, url: &str, now: Now, links: Vec<String>) {
        let mut pages = lock(&self.0);
        let Pages { known, swept } = &mut *pages;
        if let Some((lesson, last)) = known.get_mut(url) {
            *last = now;
            return lesson.observe(links);
        }
        if known.len() >= PAGES_MAX && swept.is_none_or(|swept| now.since(swept) >= SWEEP) {
            *swept = Some(now);
            known.retain(|_, (_, last)| now.since(*last) < TERM);
        }
        if !links.is_empty() && known.len() < PAGES_MAX {
            let mut lesson = Lesson::default();
            lesson.observe(links);
            known.insert(url.into(), (lesson, now));
        }
    }

    fn forget(&self, url: &str) {
        if let Some((lesson, _)) = lock(&self.0).known.get_mut(url) {
            lesson.forget();
        }
    }
}

/// A page that a browser goes to and the farm is asked for.
#[derive(Debug)]
pub(super) struct Page {
    scheme: Box<str>,
    host: Box<str>,
    path: Box<str>,
    told: bool,
    /// Asked for without a query. With one, what the page names may be made of it, and one visitor's is none of another's.
    teaches: bool,
}

impl Page {
    /// True when the browser was told what it is going to load.
    pub(super) fn was_told(&self) -> bool {
        self.told
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// Tells the browser what the page is going to ask for, once an exchange, where the route does so and it is known. To be
/// called when it is clear that the farm is asked.
pub(super) fn tell(exchange: &mut Exchange, route: &Route) {
    let head = &exchange.head;
    if !route.filters.contains(Filter::HintsPreload)
        || exchange.page.is_some()
        || !hints::are_of_use(&head.method, head.version, &head.headers)
    {
        return;
    }
    let (scheme, host, path) = (head.scheme.as_str().into(), exchange.host().into(), exchange.uri.path().into());
    let mut page = Page { scheme, host, path, told: false, teaches: exchange.uri.query().is_none() };
    if let Some(value) = exchange.worker.shared.workshop.lessons().told(&page.url()) {
        // One that finds no room is not missed.
        page.told = exchange.head.interim.send(StatusCode::EARLY_HINTS, HeaderMap::from_iter([(LINK, value)]));
    }
    exchange.page = Some(Rc::new(page));
}

/// Learns from the answer of the farm to `request`.
pub(super) fn learn(worker: &Worker, page: Option<&Rc<Page>>, request: &HeaderMap, mut response: Response) -> Response {
    let Some(page) = page.filter(|page| page.teaches) else { return response };
    if hints::unteaches(response.status, request) {
        worker.shared.workshop.lessons().forget(&page.url());
    } else if response.status == StatusCode::OK && hints::may_teach(request, &response.headers) {
        let (workshop, now) = (worker.shared.workshop.clone(), worker.now());
        let pupil = Pupil { reader: Some(HeadReader::default()), page: Rc::clone(page), workshop, now };
        response.body = watched::watch(std::mem::take(&mut response.body), &response.headers, pupil);
    }
    response
}

/// Reads the head of one page.
struct Pupil {
    reader: Option<HeadReader>,
    page: Rc<Page>,
    workshop: Workshop,
    now: Now,
}

impl Onlooker for Pupil {
    fn look(&mut self, plain: &[u8]) -> bool {
        let over = self.reader.as_mut().is_none_or(|reader| reader.push(plain));
        if over {
            self.end();
        }
        !over
    }

    fn end(&mut self) {
        let Some(resources) = self.reader.take().and_then(HeadReader::finish) else { return };
        let link = |resource: &hints::Resource| resource.link(&self.page.scheme, &self.page.host);
        let links = resources.iter().filter_map(link).collect();
        self.workshop.lessons().observe(&self.page.url(), self.now, links);
    }
}
