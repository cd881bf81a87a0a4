//! One thread that writes lines to one place, so that nobody else ever waits for a disk, a pipe or a terminal.
//!
//! Posting is a queue push that never blocks: what does not fit [`QUEUE_BATCHES`] and [`QUEUE_BYTES`] is dropped and
//! counted. The thread wakes for every batch, writes it whole, and ends when the last [`Writer`] is gone and the queue
//! is empty. A write error is reported once on stderr per run of errors, its lines are counted as dropped, and the next
//! batch is tried afresh (a full disk may have room again).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Batches that may wait.
pub const QUEUE_BATCHES: usize = 1024;
/// Bytes that may wait: about a quarter of a second of lines at 100 000 exchanges a second.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Mode of a log file that is created here: addresses of clients are nobody else's business.
const FILE_MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; created when absent.
    File(PathBuf),
}

/// The posting side of a writer thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Message {
    Lines {
        bytes: Box<[u8]>,
        count: u64,
    },
    /// Look at [`Shared::reopen`].
    Wake,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes posted and not yet written.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    reopen: AtomicBool,
    /// Held by whoever waits for `waiting` to reach zero; see [`Writer::flush`].
    flushing: Mutex<()>,
    written: Condvar,
}

impl Writer {
    /// Opens `target` and starts its thread, which is named `name`.
    ///
    /// # Errors
    /// Those of opening the file and of starting a thread.
    pub fn start(name: &str, target: Target) -> io::Result<Self> {
        let sink = Sink::open(&target)?;
        let shared = Arc::new(Shared::default());
        let (queue, waiting) = sync_channel(QUEUE_BATCHES);
        let thread = Thread { target, sink, shared: shared.clone(), failing: false };
        std::thread::Builder::new().name(name.into()).spawn(move || thread.run(&waiting))?;
        Ok(Self { queue, shared })
    }

    /// Posts `count` whole lines. Never blocks; drops them when the queue is full. Cost: one atomic addition, one push.
    pub fn post(&self, bytes: Box<[u8]>, count: u64) {
        let length = bytes.len();
        let before = self.shared.waiting.fetch_add(length, Ordering::Relaxed);
        let fits = before + length <= QUEUE_BYTES;
        if !fits || self.queue.try_send(Message::Lines { bytes, count }).is_err() {
            self.shared.waiting.fetch_sub(length, Ordering::Relaxed);
            self.shared.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Opens the file again under its name before the next batch is written (log rotation). When that fails the old
    /// file stays in use and the failure is reported.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // A full queue wakes the thread just as well.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits until everything posted so far has been written, at most `bound`; false when it took longer.
    #[must_use]
    pub fn flush(&self, bound: Duration) -> bool {
        let guard = self.shared.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = |(): &mut ()| self.shared.waiting.load(Ordering::Acquire) > 0;
        let waited = self.shared.written.wait_timeout_while(guard, bound, unwritten);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lines lost since the start: the queue was full, or writing failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// The writing side.
struct Thread {
    target: Target,
    sink: Sink,
    shared: Arc<Shared>,
    /// The last write failed and was reported.
    failing: bool,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(message) = queue.recv() {
            self.reopen_when_asked();
            let Message::Lines { bytes, count } = message else { continue };
            if let Err(error) = self.sink.write(&bytes) {
                self.shared.dropped.fetch_add(count, Ordering::Relaxed);
                self.report(&error);
            } else {
                self.failing = false;
            }
            self.settle(bytes.len());
        }
    }

    /// Takes `length` off what is waiting, and tells a flush when nothing is left.
    fn settle(&self, length: usize) {
        if self.shared.waiting.fetch_sub(length, Ordering::Release) == length {
            // Under the lock, so that a flush cannot miss this between its look and its wait.
            let _held = self.shared.flushing.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.written.notify_all();
        }
    }

    fn reopen_when_asked(&mut self) {
        if self.shared.reopen.swap(false, Ordering::Acquire) {
            match Sink::open(&self.target) {
                Ok(sink) => self.sink = sink,
                Err(error) => self.report(&error),
            }
        }
    }

    /// Straight to stderr: the process's own messages may be what this thread fails to write.
    fn report(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            let _ = writeln!(io::stderr(), "log {:?}: {error}; lines are dropped until this is mended", self.target);
        }
    }
}

/// What is open.
enum Sink {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Stdout => Self::Stdout,
            Target::Stderr => Self::Stderr,
            Target::File(path) => Self::File(OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn line(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn lines_arrive_in_order_and_follow_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let writer = Writer::start("test", Target::File(path.clone())).unwrap();
        writer.post(line("one\n"), 1);
        writer.post(line("two\nthree\n"), 2);
        assert!(writer.flush(BOUND));
        std::fs::rename(&path, &rotated).unwrap();
        writer.post(line("four\n"), 1);
        assert!(writer.flush(BOUND));
        writer.reopen();
        writer.post(line("five\n"), 1);
        assert!(writer.flush(BOUND));
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\ntwo\nthree\nfour\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "five\n");
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_not_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        // A pipe takes 64 KiB from us and then nobody reads: the thread stands still in a write.
        let pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = Writer::start("test", Target::File(path)).unwrap();
        let batch = vec![b'x'; 1024 * 1024];
        for _ in 0..16 {
            writer.post(batch.as_slice().into(), 10);
        }
        let fitting = (QUEUE_BYTES / batch.len()) as u64;
        assert_eq!(writer.dropped(), (16 - fitting) * 10);
        assert!(!writer.flush(Duration::from_millis(1)), "nothing of this can have been written");
        drop(pipe);
    }

    #[test]
    fn what_cannot_be_opened_is_an_error_and_what_cannot_be_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Writer::start("test", Target::File(folder.path().join("missing/access.log"))).is_err());
        let writer = Writer::start("test", Target::File("/dev/full".into())).unwrap();
        writer.post(line("lost\nlost\n"), 2);
        assert!(writer.flush(BOUND));
        assert_eq!(writer.dropped(), 2);
    }
}
