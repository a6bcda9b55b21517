//! Readiness: true once nothing blocks it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// Collects what still blocks readiness. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// Says what one should know of who is ready all the same.
type Note = Box<dyn Fn() -> Option<String> + Send + Sync>;

struct Shared {
    notes: Mutex<Vec<Note>>,
    blockers: Mutex<BTreeSet<(String, u64)>>,
    ready: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("blockers", &self.blockers).finish_non_exhaustive()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Ready until something blocks.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                notes: Mutex::default(),
                blockers: Mutex::default(),
                ready: watch::Sender::new(true),
            }),
        }
    }

    /// Blocks readiness until the guard is dropped. `what` is shown to people.
    #[must_use = "dropping the guard says that it is ready"]
    pub fn block(&self, what: &str) -> BlockReady {
        let mut blockers = self.shared.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = blockers.last().map_or(0, |_| {
            blockers.iter().map(|(_, number)| *number).max().map_or(0, |max| max + 1)
        });
        let id = (what.to_owned(), number);
        blockers.insert(id.clone());
        self.shared.ready.send_replace(false);
        BlockReady { shared: self.shared.clone(), id }
    }

    /// What blocks readiness now; empty when ready.
    pub fn blockers(&self) -> Vec<String> {
        let blockers = self.shared.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        blockers.iter().map(|(what, _)| what.clone()).collect()
    }

    /// Adds something to be told beside readiness, asked for each time: what does not
    /// block, and still matters.
    pub fn add_note(&self, note: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let mut notes = self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(Box::new(note));
    }

    /// What is to be told beside readiness now.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().filter_map(|note| note()).collect()
    }

    /// Returns once nothing blocks.
    pub async fn wait(&self) {
        let mut ready = self.shared.ready.subscribe();
        // The sender lives in `self.shared`: it cannot be gone while we wait.
        drop(ready.wait_for(|ready| *ready).await);
    }
}

/// Blocks readiness while it lives. Its drop is the protocol: a part that ends
/// early, by error or panic, cannot leave readiness blocked or forget to block.
#[derive(Debug)]
pub struct BlockReady {
    shared: Arc<Shared>,
    id: (String, u64),
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut blockers = self.shared.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        blockers.remove(&self.id);
        self.shared.ready.send_replace(blockers.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_guard_goes() {
        let readiness = Readiness::new();
        let first = readiness.block("dns");
        let second = readiness.block("dns");
        assert_eq!(readiness.blockers(), ["dns", "dns"]);
        drop(first);
        assert_eq!(readiness.blockers(), ["dns"]);
        drop(second);
        readiness.wait().await;
        assert!(readiness.blockers().is_empty());
    }
}
