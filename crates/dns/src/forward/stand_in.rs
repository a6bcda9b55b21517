//! Somebody who answers in place of upstream servers, where there is no network.
//!
//! A stand-in gets the bytes that a server would get, and what it says is read as the
//! reply of a server is: only the sockets, the waiting and the cache are left out.

use std::{fmt, sync::Arc};

use super::{Ask, exchange, reply::Reply};

/// The ID of queries to a stand-in: there is nobody from whom it would have to be hidden.
const ID: u16 = 0x1234;

/// From the query to the reply; `None`: no server answers.
type Answering = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

/// Answers in place of upstream servers.
#[derive(Clone)]
pub struct StandIn(Arc<Answering>);

impl StandIn {
    /// One that answers by a function from the query, as it would be sent, to the reply;
    /// `None`: no server answers in time.
    pub fn new(answering: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(answering))
    }

    /// One that never answers.
    pub fn silent() -> Self {
        Self::new(|_| None)
    }

    /// What it says to a question, if that is a reply to it.
    pub(super) fn reply(&self, ask: &Ask) -> Option<Reply> {
        let packet = (self.0)(&exchange::query(ask, ID, true))?;
        Reply::read(&packet, ID, ask).ok()
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StandIn")
    }
}
