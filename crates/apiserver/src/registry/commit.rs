//! The last step of every write: one conditional write to the store, and the
//! allocations that live or die with it.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Registry,
    allocators::{Allocation, Holding},
    object::Encoded,
};
use crate::{
    Kind, Status,
    store::{Expect, Key, OBJECT_BYTES_MAX, Record, Write, WriteError},
};

/// What a write takes and gives back, if it goes through.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) taken: Option<Allocation>,
    pub(crate) released: Vec<Holding>,
}

impl Ledger {
    fn is_empty(&self) -> bool {
        self.taken.as_ref().is_none_or(Allocation::is_empty) && self.released.is_empty()
    }
}

/// Why a write did not go through.
pub(crate) enum Lost {
    /// Something else is stored than the write expected; the caller may look again.
    Race,
    /// No further attempt will help.
    Refused(Status),
}

impl Registry {
    /// Stores an object where `expect` holds.
    pub(crate) async fn put(
        &self,
        key: Key,
        expect: Expect,
        encoded: Encoded,
        ledger: Ledger,
    ) -> Result<Arc<Record>, Lost> {
        if encoded.len() > OBJECT_BYTES_MAX {
            return Err(Lost::Refused(too_large(encoded.len())));
        }
        self.carry_out(Write::put(key, expect, move |revision| encoded.at(revision)), ledger).await
    }

    /// Removes an object that `revision` wrote; watchers see `last`.
    pub(crate) async fn remove(
        &self,
        kind: &Kind,
        key: Key,
        revision: u64,
        last: &Value,
        ledger: Ledger,
    ) -> Result<Arc<Record>, Lost> {
        let encoded = Encoded::of(kind, last);
        self.carry_out(Write::delete(key, revision, move |revision| encoded.at(revision)), ledger)
            .await
    }

    async fn carry_out(&self, write: Write, ledger: Ledger) -> Result<Arc<Record>, Lost> {
        let outcome = if ledger.is_empty() {
            self.inner.store.write(write).await
        } else {
            self.settle(write, ledger).await
        };
        outcome.map_err(|error| match error {
            WriteError::Conflict { .. } => Lost::Race,
            WriteError::TooLarge { bytes, .. } => Lost::Refused(too_large(bytes)),
            WriteError::BadKey(_) => Lost::Refused(Status::bad_request(error.to_string())),
            WriteError::Closed => {
                Lost::Refused(Status::unavailable("the API server is shutting down"))
            }
            WriteError::Io(_) => Lost::Refused(Status::internal(error)),
        })
    }

    /// Writes and settles the allocations in a task of its own: a write in the queue is carried
    /// out even when its caller goes away, and then the books must still be right.
    async fn settle(&self, write: Write, ledger: Ledger) -> Result<Arc<Record>, WriteError> {
        let registry = self.clone();
        let task = tokio::spawn(async move {
            let record = registry.inner.store.write(write).await?;
            if let Some(taken) = ledger.taken {
                taken.keep();
            }
            registry.inner.allocators.release(&ledger.released);
            Ok(record)
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }
}

fn too_large(bytes: usize) -> Status {
    Status::too_large(format!(
        "the object is too large: it has {bytes} bytes, the limit is {OBJECT_BYTES_MAX}"
    ))
}
