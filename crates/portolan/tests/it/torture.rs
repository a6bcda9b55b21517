//! The process is killed while clients write: what they were told is what there
//! is when it is back.
//!
//! Each client owns some ConfigMaps and writes them one after the other, so that
//! it knows what each must be: what was acknowledged last or, for the one write
//! that the kill caught, that one. The kill falls on any of the writes; all
//! rounds happen to one data directory. `cargo xtask torture` does all of it, the
//! usual test run a little. (A kill leaves what the kernel has taken; what a power
//! failure leaves is tested in `crates/apiserver/tests/it/store`.)

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use crate::api::{Api, ApiClient, cluster_flags, cluster_in};

/// Rounds and writes of the whole torture, and of the taste in the usual run.
const ROUNDS: u64 = 50;
const WRITES: u64 = 10_000;
const TASTE: (u64, u64) = (3, 400);

const CLIENTS: usize = 32;
const OBJECTS_PER_CLIENT: usize = 64;
const NAMESPACE: &str = "torture";
const PATH: &str = "/api/v1/namespaces/torture/configmaps";

/// Letters of an object, from less than a page of the store's file to many.
const LETTERS: [usize; 4] = [10, 500, 3_000, 20_000];

/// What a client knows of an object: `None` when there is none.
type State = Option<Stored>;

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    revision: u64,
    write: String,
}

/// An object, as its client believes it to be.
struct Object {
    name: String,
    acknowledged: State,
    /// What the write that was not answered would have made of it.
    in_doubt: Option<Option<String>>,
}

struct Writer {
    client: ApiClient,
    objects: Vec<Object>,
    dice: Dice,
    /// Writes so far: no two are the same, for a write that changes nothing has no revision.
    number: u64,
    /// The revision at the start: every later one is greater.
    floor: u64,
}

/// A small generator, for tests that run again as they ran (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// What is counted while all write.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    /// When so many are acknowledged, the bell rings.
    bell_at: u64,
    bell: Notify,
}

impl Progress {
    fn count(&self) {
        if self.acknowledged.fetch_add(1, Relaxed) + 1 == self.bell_at {
            self.bell.notify_one();
        }
    }
}

/// The data of an object: all of it says which write it is of.
fn data(write: &str) -> Value {
    let letters = write.rsplit('-').next().unwrap().parse().unwrap();
    let filler: String = write.chars().cycle().take(letters).collect();
    json!({"write": write, "filler": filler})
}

fn stored(object: &Value) -> Stored {
    let revision = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let write = object["data"]["write"].as_str().unwrap_or_default().to_owned();
    assert_eq!(object["data"], data(&write), "half a write: {object}");
    Stored { revision, write }
}

impl Writer {
    /// Writes until the server is gone, or `until` are acknowledged.
    async fn run(&mut self, progress: &Progress, until: u64) {
        while progress.acknowledged.load(Relaxed) < until {
            let chosen = self.dice.below(self.objects.len());
            self.number += 1;
            let letters = LETTERS[self.dice.below(LETTERS.len())];
            let write = format!("{}-{}-{letters}", self.objects[chosen].name, self.number);
            if !self.write(chosen, write).await {
                return;
            }
            progress.count();
        }
    }

    /// Makes, changes or removes one object; false when no answer came.
    async fn write(&mut self, chosen: usize, write: String) -> bool {
        let what = self.dice.below(4);
        let object = &mut self.objects[chosen];
        let path = format!("{PATH}/{}", object.name);
        let body = |revision: Option<u64>| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": object.name, "resourceVersion": revision.map(|r| r.to_string())},
                "data": data(&write),
            })
        };
        let (expected, answer) = match (&object.acknowledged, what) {
            (None, _) => (201, self.client.ask(Method::POST, PATH, Some(&body(None))).await),
            (Some(_), 0) => (200, self.client.ask(Method::DELETE, &path, None).await),
            (Some(_), 1) => (200, self.client.ask(Method::PATCH, &path, Some(&body(None))).await),
            (Some(known), _) => {
                (200, self.client.ask(Method::PUT, &path, Some(&body(Some(known.revision)))).await)
            }
        };
        let removed = object.acknowledged.is_some() && what == 0;
        let Ok((code, answer)) = answer else {
            object.in_doubt = Some((!removed).then_some(write));
            return false;
        };
        assert_eq!(code, expected, "{}: {answer}", object.name);
        let before = object.acknowledged.as_ref().map_or(self.floor, |known| known.revision);
        object.acknowledged = if removed {
            None
        } else {
            let now = stored(&answer);
            assert_eq!(now.write, write);
            assert!(now.revision > before.max(self.floor), "{now:?} after {before}");
            Some(now)
        };
        true
    }

    /// Compares what is there with what was acknowledged, and goes on from it.
    fn check(
        &mut self,
        found: &mut BTreeMap<String, Stored>,
        kept: &mut u64,
    ) -> Result<(), String> {
        for object in &mut self.objects {
            let now = found.remove(&object.name);
            let doubt = object.in_doubt.take();
            if now != object.acknowledged {
                let is_doubt =
                    doubt.is_some_and(|doubt| doubt == now.as_ref().map(|s| s.write.clone()));
                let later = now.as_ref().zip(object.acknowledged.as_ref());
                if !is_doubt || later.is_some_and(|(now, before)| now.revision <= before.revision) {
                    return Err(format!(
                        "{} was acknowledged as {:?} and is {now:?}",
                        object.name, object.acknowledged
                    ));
                }
                *kept += 1;
                object.acknowledged = now;
            }
        }
        Ok(())
    }
}

/// Every ConfigMap of the namespace, and the revision of the list.
async fn everything(client: &ApiClient) -> Result<(u64, BTreeMap<String, Stored>), String> {
    let (code, list) = client.ask(Method::GET, PATH, None).await.map_err(|e| e.to_string())?;
    let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
    let items = list["items"].as_array().filter(|_| code == 200).ok_or(list.to_string())?;
    let ours = items.iter().filter(|item| item["metadata"]["name"] != "kube-root-ca.crt");
    let named =
        ours.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), stored(item)));
    Ok((revision.ok_or("no revision")?, named.collect()))
}

/// What the rounds came to.
struct Report {
    restarts: Vec<Duration>,
    /// Writes that were stored though nobody was told.
    kept: u64,
    objects: usize,
    file_bytes: u64,
}

async fn survive(extra: &[&str], rounds: u64, writes: u64) -> Result<Report, String> {
    let flags = cluster_flags();
    let mut api = cluster_in(tempfile::tempdir().unwrap(), &flags, extra);
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let made = api.client().ask(Method::POST, "/api/v1/namespaces", Some(&namespace)).await;
    assert_eq!(made.unwrap().0, 201);
    let mut dice = Dice(7);
    let mut writers: Vec<Writer> = (0..CLIENTS)
        .map(|number| Writer {
            client: api.client(),
            objects: (0..OBJECTS_PER_CLIENT)
                .map(|object| Object {
                    name: format!("c{number}.{object}"),
                    acknowledged: None,
                    in_doubt: None,
                })
                .collect(),
            dice: Dice(dice.below(usize::MAX) as u64),
            number: 0,
            floor: 0,
        })
        .collect();
    let mut report = Report { restarts: Vec::new(), kept: 0, objects: 0, file_bytes: 0 };
    for round in 0..rounds {
        let cut = 1 + dice.below(writes as usize) as u64;
        let progress = Arc::new(Progress { bell_at: cut, ..Progress::default() });
        let working = start_all(writers, &progress, u64::MAX);
        progress.bell.notified().await;
        tokio::time::sleep(Duration::from_micros(dice.below(3_000) as u64)).await;
        let folder = api.up.sigkill();
        writers = all_back(working).await;

        let before = Instant::now();
        api = cluster_in(folder, &flags, extra);
        // Up to its first answer, by a client that has to connect.
        let client = api.client();
        let health = client.request(Method::GET, "/readyz").send().await;
        assert_eq!(health.map_err(|error| error.to_string())?.status().as_u16(), 200);
        report.restarts.push(before.elapsed());

        let wrong = |what: String| format!("round {round}: {what}");
        let (revision, mut found) = everything(&client).await.map_err(wrong)?;
        report.objects = report.objects.max(found.len());
        for writer in &mut writers {
            let newest = writer.objects.iter().flat_map(|o| &o.acknowledged).map(|s| s.revision);
            let newest = newest.max().unwrap_or_default();
            if revision < newest {
                return Err(wrong(format!("at revision {revision}, {newest} was acknowledged")));
            }
            writer.check(&mut found, &mut report.kept).map_err(wrong)?;
            writer.floor = revision;
            writer.client = client.clone();
        }
        if !found.is_empty() {
            return Err(wrong(format!("nobody wrote {found:?}")));
        }
        // The rest of the writes, on what came back.
        let progress =
            Arc::new(Progress { acknowledged: AtomicU64::new(cut), ..Progress::default() });
        writers = all_back(start_all(writers, &progress, writes)).await;
    }
    report.file_bytes = file_bytes(&api);
    Ok(report)
}

/// All writers at work at once.
fn start_all(
    writers: Vec<Writer>,
    progress: &Arc<Progress>,
    until: u64,
) -> Vec<JoinHandle<Writer>> {
    let start = |mut writer: Writer| {
        let progress = progress.clone();
        tokio::spawn(async move {
            writer.run(&progress, until).await;
            writer
        })
    };
    writers.into_iter().map(start).collect()
}

async fn all_back(working: Vec<JoinHandle<Writer>>) -> Vec<Writer> {
    let mut back = Vec::new();
    for writer in working {
        back.push(writer.await.unwrap());
    }
    back
}

fn file_bytes(api: &Api) -> u64 {
    let file = api.up.folder.path().join("data/store/portolan.redb");
    std::fs::metadata(file).map_or(0, |file| file.len())
}

// The figures are what it is run for at length.
#[allow(clippy::print_stdout)]
fn torture(extra: &[&str], rounds: u64, writes: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut report = runtime.block_on(survive(extra, rounds, writes))?;
    report.restarts.sort();
    println!(
        "SIGKILL: {rounds} rounds of {writes} writes by {CLIENTS} clients; no acknowledged write \
         lost; {} unanswered ones kept. Up to {} objects; from exec to the first answer {:?} at \
         the median, {:?} at most. The file has {} KiB.",
        report.kept,
        report.objects,
        report.restarts[report.restarts.len() / 2],
        report.restarts[report.restarts.len() - 1],
        report.file_bytes >> 10,
    );
    Ok(())
}

#[test]
fn a_killed_cluster_keeps_what_it_acknowledged() {
    torture(&[], TASTE.0, TASTE.1).unwrap();
}

/// The control: where nothing is kept, the same clients must notice.
#[test]
fn a_cluster_in_memory_is_caught_losing_writes() {
    let wrong = torture(&["--ephemeral"], 1, TASTE.1).unwrap_err();
    assert!(wrong.contains("acknowledged"), "{wrong}");
}

#[test]
#[ignore = "minutes; `cargo xtask torture` runs it"]
fn sigkill() {
    torture(&[], ROUNDS, WRITES).unwrap();
}
