//! The request body on its way into hyper, with a window for the exchange to see how it fares.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::answer::clean;
use crate::body::Body;
use crate::error::ProxyError;

/// What the exchange can see of the body it handed over.
#[derive(Debug, Default)]
pub(super) struct Upload {
    body: RefCell<Body>,
    /// A frame has left: the body cannot be sent a second time.
    touched: Cell<bool>,
    finished: Cell<bool>,
    /// The last poll found nothing: we wait for the client, not for the origin.
    waiting: Cell<bool>,
    /// The client's own failure. hyper reports it as a broken connection; here is what it really was.
    fault: Cell<Option<ProxyError>>,
}

impl Upload {
    pub(super) fn new(body: Body) -> Rc<Self> {
        let finished = Cell::new(body.is_end_stream());
        Rc::new(Self { body: RefCell::new(body), finished, ..Self::default() })
    }

    /// True when every frame has been handed to the connection.
    pub(super) fn finished(&self) -> bool {
        self.finished.get()
    }

    /// True while the client owes the next frame.
    pub(super) fn waiting(&self) -> bool {
        self.waiting.get()
    }

    /// The failure of the client's side that ended the body, if one did.
    pub(super) fn fault(&self) -> Option<ProxyError> {
        self.fault.get()
    }

    /// The body back, when none of it has gone.
    pub(super) fn take_untouched(&self) -> Option<Body> {
        (!self.touched.get()).then(|| self.body.take())
    }
}

/// The end that hyper polls.
#[derive(Debug)]
pub(super) struct Outgoing(pub(super) Rc<Upload>);

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let upload = &self.0;
        let mut body = upload.body.borrow_mut();
        let polled = Pin::new(&mut *body).poll_frame(cx);
        upload.waiting.set(polled.is_pending());
        match &polled {
            Poll::Pending => (),
            Poll::Ready(None) => upload.finished.set(true),
            Poll::Ready(Some(frame)) => {
                upload.touched.set(true);
                upload.finished.set(frame.is_ok() && body.is_end_stream());
                upload.fault.set(frame.as_ref().err().copied());
            }
        }
        polled.map_ok(clean)
    }

    fn is_end_stream(&self) -> bool {
        self.0.finished.get()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().size_hint()
    }
}
