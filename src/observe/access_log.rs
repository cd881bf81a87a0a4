//! The access log: one line per exchange, written by one thread, formatted on the worker that served it.
//!
//! A worker formats into a buffer of its own and hands it on
//! - at once when its last hand-over is [`FLUSH_AFTER`] ago: under low load a line shows up with its response;
//! - else when [`BATCH_BYTES`] have gathered, or after [`FLUSH_AFTER`] at the latest: under load a batch costs one queue
//!   push and one wake-up for many lines.
//!
//! The queue is bounded and never waited for (see [`super::writer`]): what does not fit is dropped and counted.
//!
//! A reload may change target and format, or turn the log on and off. Each worker notices at its next line, by one
//! atomic reading; a target that did not change keeps its file and thread, a former one ends when the last worker has
//! let go of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::format::Format;
use super::record::AccessRecord;
use super::writer::{Target, Writer};

/// A worker hands its lines on when it has gathered this many bytes.
pub const BATCH_BYTES: usize = 16 * 1024;
/// The longest a line waits on its worker.
pub const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The access log of the process, on or off. Cheap to clone; clones are the same log.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Moves with every change of `output`, after it.
    version: AtomicU64,
    output: Mutex<Option<Output>>,
    /// Lines lost by writers that are no longer in `output`.
    dropped_before: AtomicU64,
}

/// Where lines go and what they look like.
#[derive(Debug, Clone)]
struct Output {
    target: Target,
    format: Arc<Format>,
    writer: Writer,
}

impl AccessLog {
    /// A log that is off until [`AccessLog::configure`] turns it on.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Takes up a target and format, or turns the log off. Workers follow from their next line on.
    ///
    /// # Errors
    /// Those of opening the file and of starting a thread; the log then goes on as it was.
    pub fn configure(&self, wanted: Option<(Target, Format)>) -> io::Result<()> {
        let mut output = self.lock();
        let next = match (wanted, output.as_ref()) {
            (None, _) => None,
            (Some((target, format)), Some(now)) if now.target == target => {
                Some(Output { target, format: Arc::new(format), writer: now.writer.clone() })
            }
            (Some((target, format)), _) => {
                let writer = Writer::start("access-log", target.clone())?;
                Some(Output { target, format: Arc::new(format), writer })
            }
        };
        let kept = next.as_ref().map(|next| &next.target) == output.as_ref().map(|now| &now.target);
        let former = std::mem::replace(&mut *output, next);
        if let Some(former) = former.filter(|_| !kept) {
            self.0.dropped_before.fetch_add(former.writer.dropped(), Ordering::Relaxed);
        }
        self.0.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// A worker's own way into the log. To be made and used inside that worker's local runtime.
    #[must_use]
    pub fn handle(&self) -> AccessLogHandle {
        AccessLogHandle(Rc::new(Lines {
            log: self.clone(),
            version: Cell::new(self.0.version.load(Ordering::Acquire)),
            output: RefCell::new(self.lock().clone()),
            buffer: RefCell::default(),
            count: Cell::new(0),
            handed_on: Cell::new(None),
            timer: Cell::new(false),
        }))
    }

    /// Opens the file again under its name (`SIGUSR1`).
    pub fn reopen(&self) {
        if let Some(output) = &*self.lock() {
            output.writer.reopen();
        }
    }

    /// Waits until everything handed on has been written, at most `bound`; false when it took longer. For shutdown,
    /// after the workers have ended or called [`AccessLogHandle::flush`].
    #[must_use]
    pub fn flush(&self, bound: Duration) -> bool {
        let output = self.lock().clone();
        output.is_none_or(|output| output.writer.flush(bound))
    }

    /// Lines lost since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let now = self.lock().as_ref().map_or(0, |output| output.writer.dropped());
        now + self.0.dropped_before.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Output>> {
        // A poisoned lock means a panic while one value was moved into place; it is whole.
        self.0.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's side of the log; see the module. Cheap to clone within the worker.
#[derive(Debug, Clone)]
pub struct AccessLogHandle(Rc<Lines>);

#[derive(Debug)]
struct Lines {
    log: AccessLog,
    /// The version of `output`.
    version: Cell<u64>,
    output: RefCell<Option<Output>>,
    /// Lines that have not been handed on yet, and their number.
    buffer: RefCell<Vec<u8>>,
    count: Cell<u64>,
    /// When lines were last handed on, by the end of the exchange that caused it.
    handed_on: Cell<Option<Instant>>,
    /// A timer is under way that will hand on.
    timer: Cell<bool>,
}

impl AccessLogHandle {
    /// Writes one line, if the log is on; never blocks, never fails. Must be called inside a local runtime (a worker),
    /// which runs the timer behind [`FLUSH_AFTER`]. Cost: the formatting; no lock, no clock reading, an allocation a
    /// batch.
    pub fn write(&self, record: &AccessRecord) {
        let lines = &self.0;
        lines.follow();
        let Some(gathered) = lines.add(record) else { return };
        let finished = record.time.mono + record.duration;
        let quiet = lines.handed_on.get().is_none_or(|last| finished.saturating_duration_since(last) >= FLUSH_AFTER);
        if quiet || gathered >= BATCH_BYTES {
            lines.handed_on.set(Some(finished));
            lines.hand_on();
        } else if !lines.timer.replace(true) {
            let lines = Rc::downgrade(lines);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                if let Some(lines) = lines.upgrade() {
                    lines.timer.set(false);
                    lines.hand_on();
                }
            });
        }
    }

    /// Keeps the request fields that the format prints. Cost: reference counts; nothing when the log is off.
    pub fn capture_request(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        self.0.follow();
        if let Some(output) = &*self.0.output.borrow() {
            record.capture_request(&output.format, headers);
        }
    }

    /// Keeps the response fields that the format prints. Cost: nothing unless it prints some.
    pub fn capture_response(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        if let Some(output) = &*self.0.output.borrow() {
            record.capture_response(&output.format, headers);
        }
    }

    /// Hands on what has gathered.
    pub fn flush(&self) {
        self.0.hand_on();
    }
}

impl Lines {
    /// Takes up a changed output. What was written for the former one goes there.
    fn follow(&self) {
        let version = self.log.0.version.load(Ordering::Acquire);
        if self.version.replace(version) != version {
            self.hand_on();
            *self.output.borrow_mut() = self.log.lock().clone();
        }
    }

    /// Formats a line; the bytes gathered so far, or `None` when the log is off.
    fn add(&self, record: &AccessRecord) -> Option<usize> {
        let output = self.output.borrow();
        let mut buffer = self.buffer.borrow_mut();
        output.as_ref()?.format.write(record, &mut buffer);
        self.count.set(self.count.get() + 1);
        Some(buffer.len())
    }

    fn hand_on(&self) {
        let count = self.count.replace(0);
        if count > 0 {
            let mut buffer = self.buffer.borrow_mut();
            if let Some(output) = &*self.output.borrow() {
                output.writer.post(buffer.as_slice().into(), count);
            }
            buffer.clear();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Now};
    use std::path::Path;

    const BOUND: Duration = Duration::from_secs(10);
    /// Lines for a few batches.
    const MANY: usize = BATCH_BYTES / 20;

    fn record(time: Now) -> AccessRecord {
        AccessRecord::new(time, "192.0.2.7:4711".parse().unwrap(), "http".into())
    }

    fn written(log: &AccessLog, path: &Path) -> usize {
        assert!(log.flush(BOUND));
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    #[tokio::test]
    async fn lines_are_prompt_when_few_and_gathered_when_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::off();
        log.configure(Some((Target::File(path.clone()), Format::Combined))).unwrap();
        let start = Clock::System.now();
        let at = |millis| record(start.plus(Duration::from_millis(millis)));
        tokio::task::LocalSet::new()
            .run_until(async {
                let worker = log.handle();
                worker.write(&at(0));
                assert_eq!(written(&log, &path), 1, "the first line waits for nobody");
                worker.write(&at(1));
                worker.write(&at(99));
                assert_eq!(written(&log, &path), 1, "these two wait for more");
                let elapsed = async {
                    while worker.0.timer.get() {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(BOUND, elapsed).await.unwrap();
                assert_eq!(written(&log, &path), 3, "but no longer than that");
                worker.write(&at(100));
                assert_eq!(written(&log, &path), 4, "a line after a quiet time is on its own again");
                worker.write(&at(101));
                worker.flush();
                assert_eq!(written(&log, &path), 5, "asked for");
                worker.write(&at(102));
                for _ in 1..MANY {
                    worker.write(&at(103));
                }
                assert!(written(&log, &path) > MANY / 2, "a full buffer goes without a timer");
                drop(worker);
            })
            .await;
        assert_eq!(written(&log, &path), 5 + MANY, "the last lines leave with their worker");
        assert_eq!(log.dropped(), 0);
    }

    #[tokio::test]
    async fn workers_follow_a_changed_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.log"), folder.path().join("two.log"));
        let log = AccessLog::off();
        let record = record(Clock::System.now());
        tokio::task::LocalSet::new()
            .run_until(async {
                let worker = log.handle();
                let configure = |path: &Path, format| log.configure(Some((Target::File(path.into()), format)));
                worker.write(&record);
                configure(&one, Format::Combined).unwrap();
                worker.write(&record);
                configure(&one, Format::Json).unwrap();
                worker.write(&record);
                worker.flush();
                assert!(log.flush(BOUND));
                let text = std::fs::read_to_string(&one).unwrap();
                assert_eq!(text.lines().map(|line| line.starts_with('{')).collect::<Vec<_>>(), [false, true]);

                assert!(configure(&folder.path().join("missing/x.log"), Format::Json).is_err());
                worker.write(&record);
                worker.flush();
                assert_eq!(written(&log, &one), 3, "a target that cannot be opened changes nothing");
                configure(&two, Format::Json).unwrap();
                worker.write(&record);
                worker.flush();
                assert_eq!(written(&log, &two), 1);
                log.configure(None).unwrap();
                worker.write(&record);
                worker.flush();
            })
            .await;
        assert_eq!(std::fs::read_to_string(&two).unwrap().lines().count(), 1, "off is off");
    }
}
