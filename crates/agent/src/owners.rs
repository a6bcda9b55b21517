//! Who has registered what on the own Pod.
//!
//! ```text
//!   PUT ──▶ checked whole ──▶ the owner's turn ──▶ one record, in a life that begins now
//!   DELETE ─────────────────▶ the owner's turn ──▶ no record
//!   drain ──▶ draining ── wait, turn given up ──▶ no record, unless somebody took it back before
//! ```
//!
//! Each owner has a record of its own on the Pod and waits for nobody else. A registration begins
//! a life, as the program that asks for it may have been started again since the last one, and a
//! record that is older than its container counts for nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use futures_util::future::join_all;
use portolan_runtime::Shutdown;
use portolan_sdk::{Error, Registered, Registration, Registry, Standing};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Shared,
    problem::Problem,
    read,
    registration::{OwnedServices, Service, Services, registrations},
};

/// A Pod has some containers, and a record is 32 KiB at most, of 256 KiB of annotations.
pub(crate) const OWNERS_MAX: usize = 32;

/// All owners.
pub(crate) struct Owners {
    registry: Result<Registry, Error>,
    owners: Mutex<HashMap<String, Arc<Owner>>>,
}

#[derive(Default)]
struct Owner {
    turn: tokio::sync::Mutex<Life>,
}

/// What an owner has registered.
#[derive(Default)]
struct Life {
    registered: Option<Registered>,
    /// Differs after each change.
    number: u64,
    draining: bool,
}

impl Owners {
    pub(crate) fn new(registry: Result<Registry, Error>) -> Self {
        Self { registry, owners: Mutex::default() }
    }

    /// The registry of an owner, in a life that begins now.
    fn registry(&self, owner: &str) -> Result<Registry, Problem> {
        let registry = self.registry.as_ref().map_err(Problem::from)?;
        Ok(registry.as_owner(owner)?)
    }

    fn owner(&self, name: &str) -> Result<Arc<Owner>, Problem> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if !owners.contains_key(name) && owners.len() >= OWNERS_MAX {
            return Err(Problem::unavailable(format!(
                "{OWNERS_MAX} owners are registered already"
            ))
            .fix("delete one, or register more services with one owner"));
        }
        Ok(owners.entry(name.to_owned()).or_default().clone())
    }

    /// Forgets an owner that has nothing.
    fn forget(&self, name: &str) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let has_nothing = owners.get(name).is_some_and(|owner| {
            Arc::strong_count(owner) == 1
                && owner.turn.try_lock().is_ok_and(|life| life.registered.is_none())
        });
        if has_nothing {
            owners.remove(name);
        }
    }

    fn all(&self) -> Vec<(String, Arc<Owner>)> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.iter().map(|(name, owner)| (name.clone(), owner.clone())).collect()
    }

    /// How many owners there are.
    pub(crate) fn len(&self) -> usize {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Makes an owner have these services and no others.
    async fn put(&self, name: &str, services: Vec<Registration>) -> Result<(), Problem> {
        let registry = self.registry(name)?;
        let owner = self.owner(name)?;
        let put = async {
            let mut life = owner.turn.lock().await;
            if life.draining {
                return Err(Problem::new(StatusCode::CONFLICT, format!("{name} is draining"))
                    .fix("the agent ends: register with the one that follows it"));
            }
            // Begun with nothing, so that a write that fails takes nothing back: what the owner
            // had stays until something else is written.
            let mut next = registry.register_all([]).await?;
            next.update(services).await?;
            if let Some(before) = life.registered.replace(next) {
                before.keep();
            }
            life.number += 1;
            Ok(())
        };
        let outcome = put.await;
        drop(owner);
        self.forget(name);
        outcome
    }

    /// Takes back what an owner has, also from before the agent began.
    async fn delete(&self, name: &str) -> Result<(), Problem> {
        let registry = self.registry(name)?;
        let owner = self.owner(name)?;
        let outcome = owner.turn.lock().await.end(&registry).await;
        drop(owner);
        self.forget(name);
        outcome.map_err(Problem::from)
    }

    /// Lets all owners take no more calls, waits, and takes back what they have. Whose
    /// registration is deleted meanwhile is waited for no longer.
    pub(crate) async fn drain(&self, wait: Duration, shutdown: &Shutdown) {
        let chosen = self.all();
        let begun = join_all(chosen.iter().map(async |(name, owner)| {
            let mut life = owner.turn.lock().await;
            life.begin_draining(name).await.then_some(life.number)
        }));
        let begun = begun.await;
        let draining: Vec<_> =
            chosen.iter().zip(begun).filter_map(|(o, n)| Some((o, n?))).collect();
        if draining.is_empty() {
            return;
        }
        timeout(wait, shutdown.cancelled()).await.ok();
        join_all(draining.iter().map(async |((name, owner), number)| {
            let mut life = owner.turn.lock().await;
            if life.number != *number {
                return;
            }
            let ended = match self.registry(name) {
                Ok(registry) => life.end(&registry).await.map_err(Problem::from),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = ended {
                tracing::warn!(owner = name, problem = problem.line(), "not taken back");
            }
        }))
        .await;
        let names: Vec<String> = draining.iter().map(|((name, _), _)| name.clone()).collect();
        drop(draining);
        drop(chosen);
        names.iter().for_each(|name| self.forget(name));
    }
}

impl Life {
    /// `false`: there is nothing, or it drains already.
    async fn begin_draining(&mut self, name: &str) -> bool {
        let Some(registered) = self.registered.as_mut().filter(|_| !self.draining) else {
            return false;
        };
        self.draining = true;
        self.number += 1;
        let drained =
            |one: &Registration| Registration { standing: Standing::Draining, ..one.clone() };
        let drained: Vec<_> = registered.services().iter().map(drained).collect();
        if let Err(error) = registered.update(drained).await {
            // Callers find out by what they are answered; the time is theirs all the same.
            tracing::warn!(owner = name, %error, "draining was not announced");
        }
        true
    }

    async fn end(&mut self, registry: &Registry) -> Result<(), Error> {
        self.number += 1;
        self.draining = false;
        match self.registered.take() {
            Some(registered) => registered.deregister().await,
            None => registry.withdraw().await,
        }
    }
}

/// `PUT /agent/v1/instances/{owner}`
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(owner): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Services { services } = read::body(&headers, &body)?;
    let registered = register(&shared, &owner, &services).await?;
    Ok(Json(json!({"owner": owner, "services": registered})))
}

/// `DELETE /agent/v1/instances/{owner}`
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(owner): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.owners.delete(&owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a file says.
pub(crate) async fn register_text(shared: &Shared, text: &[u8]) -> Result<String, Problem> {
    let OwnedServices { owner, services } = read::json(text)?;
    register(shared, &owner, &services).await?;
    Ok(owner)
}

async fn register(shared: &Shared, owner: &str, services: &[Service]) -> Result<usize, Problem> {
    let checked = registrations(services, &shared.config.pod_addresses);
    let outcome = match checked {
        Ok(registrations) if registrations.is_empty() => shared.owners.delete(owner).await,
        Ok(registrations) => shared.owners.put(owner, registrations).await,
        Err(problem) => Err(problem),
    };
    shared.counts.registered(outcome.is_ok());
    outcome.map(|()| services.len())
}
