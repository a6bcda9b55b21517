//! The store and the files it finds: its own from before, other people's,
//! broken ones, and those that another process has open.

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use portolan_apiserver::store::OpenError;
use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::{Database, TableDefinition};

use super::*;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(Backend::File(path.to_owned()), Options::default())
}

/// A store with some objects, closed.
async fn filled(path: &Path) {
    let store = open(path).unwrap();
    for number in 0..20 {
        let pod = key("pods", &format!("ns{}", number % 3), &format!("{number}"));
        put(&store, &pod, Expect::Absent, &"x".repeat(300 * number)).await.unwrap();
    }
    delete(&store, &key("pods", "ns0", "0"), 2).await.unwrap();
    store.close().await;
}

fn everything(store: &Store) -> Vec<(Key, u64, Bytes)> {
    let items = store.list("pods", None, None, None, None).unwrap().items;
    items.iter().map(|r| (r.key.clone(), r.revision, r.bytes.clone())).collect()
}

#[tokio::test]
async fn a_restart_changes_nothing_and_forgets_the_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/store.redb");
    filled(&path).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds Secrets");

    let store = open(&path).unwrap();
    assert_eq!((store.revision(), store.count("pods")), (22, 19));
    for (key, revision, bytes) in everything(&store) {
        let text = "x".repeat(300 * key.name.parse::<usize>().unwrap());
        assert_eq!(bytes, body(&key, &text, revision));
    }
    // A removal is the newest revision, though no row has it.
    assert_eq!(store.watch("pods", 21).unwrap_err().oldest, 22);
    assert_eq!(store.list("pods", None, None, None, Some(21)).unwrap_err().oldest, 22);
    let mut watcher = store.watch("pods", 22).unwrap();
    let again = key("pods", "ns0", "0");
    assert_eq!(put(&store, &again, Expect::Absent, "").await.unwrap().revision, 23);
    assert_eq!(seen(&mut watcher).await, (EventKind::Added, 23, None));
    store.close().await;
}

#[tokio::test]
async fn a_store_that_was_never_written_to_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for _ in 0..3 {
        let store = open(&path).unwrap();
        assert_eq!(store.revision(), 1);
        store.close().await;
    }
}

/// The name of a new file is given last, so that this is all a kill at the first start leaves.
#[tokio::test]
async fn an_unfinished_first_start_is_started_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    fs::write(folder.path().join("store.redb.new"), "half a fi").unwrap();
    filled(&path).await;
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["store.redb", "store.redb.journal", "store.redb.lock"]);
}

/// Expects a refusal that names the file and says this, and leaves everything as it was.
fn refused(path: &Path, says: &str) {
    let before = fs::read(path).unwrap();
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let error = open(path).expect_err(says).to_string();
    assert!(
        error.contains(says) && error.contains(path.to_str().unwrap()),
        "{says:?} in {error:?}"
    );
    assert!(fs::read(path).unwrap() == before, "{says}: the file was changed");
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), modified, "{says}: written to");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    refused(&path, "has format 7, and this release reads up to format 2");

    // And redb's own.
    let mut bytes = fs::read(&path).unwrap();
    (bytes[64], bytes[192]) = (4, 4);
    fs::write(&path, bytes).unwrap();
    refused(&path, "has format redb 4, and this release reads up to format redb 3");
}

#[tokio::test]
async fn what_is_no_whole_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let check = |bytes: &[u8], says: &str| {
        fs::write(&path, bytes).unwrap();
        refused(&path, says);
    };
    check(b"", "is not a whole store: it is empty");
    check(b"hello", "is not a whole store");
    check(b"#!/bin/sh\necho this is somebody's script", "it is another kind of file");
    check(&vec![0; whole.len()], "it is another kind of file");
    for part in [5, 9, 100, 319, 4096, 5000, whole.len() / 2, whole.len() - 1] {
        check(&whole[..part], "is not a whole store");
    }
    check(&[&whole[..], b"tail"].concat(), "is not a whole store");

    // A database, but not ours.
    fs::remove_file(&path).unwrap();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("prices")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    refused(&path, "it has no table \"meta\"");

    // Ours, with a row taken out behind our back.
    fs::write(&path, &whole).unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let objects = TableDefinition::<&[u8], &[u8]>::new("objects");
    transaction.open_table(objects).unwrap().remove(&b"pods\0ns1\x001"[..]).unwrap().unwrap();
    transaction.commit().unwrap();
    drop(database);
    refused(&path, "it has 18 rows, which are not the 19 that were written");

    fs::write(&path, &whole).unwrap();
    let store = open(&path).unwrap();
    assert_eq!(store.count("pods"), 19);
    store.close().await;
}

/// What a kill leaves: the two files as they are while the store is open.
async fn killed(path: &Path, writes: u64) -> (Vec<u8>, Vec<u8>) {
    let store = open(path).unwrap();
    for number in 0..writes {
        let pod = key("pods", "late", &format!("{number}"));
        put(&store, &pod, Expect::Absent, "late").await.unwrap();
    }
    let left = (fs::read(path).unwrap(), fs::read(journal(path)).unwrap());
    store.close().await;
    left
}

fn journal(path: &Path) -> PathBuf {
    path.with_extension("redb.journal")
}

#[tokio::test]
async fn the_journal_is_part_of_a_store_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let backup = fs::read(&path).unwrap();
    let (left, left_journal) = killed(&path, 10).await;
    let mode = fs::metadata(journal(&path)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds Secrets");

    // Without it writes that were acknowledged would be gone.
    fs::write(&path, &left).unwrap();
    fs::remove_file(journal(&path)).unwrap();
    refused(&path, "store.redb.journal is missing");

    // Damaged before the last of its writes.
    let mut torn = left_journal.clone();
    torn[60] ^= 1;
    fs::write(journal(&path), &torn).unwrap();
    refused(&path, "its journal goes from revision 23 on to 25");

    fs::write(journal(&path), &left_journal).unwrap();
    let store = open(&path).unwrap();
    assert_eq!((store.revision(), store.count("pods")), (32, 29));
    store.close().await;

    // A backup of a store that had been closed does without: another life's journal is no
    // part of it, though its revisions go on where the backup ends.
    fs::write(&path, &backup).unwrap();
    fs::write(journal(&path), &left_journal).unwrap();
    let (left, left_journal) = killed(&path, 1).await;
    fs::write(&path, &left).unwrap();
    fs::write(journal(&path), &left_journal).unwrap();
    let store = open(&path).unwrap();
    assert_eq!((store.revision(), store.count("pods")), (23, 20));
    store.close().await;
    fs::remove_file(journal(&path)).unwrap();
    assert_eq!(open(&path).unwrap().revision(), 23);
}

/// Rot in any place is noticed, or does not matter.
#[tokio::test]
async fn a_changed_byte_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let store = open(&path).unwrap();
    let objects = everything(&store);
    store.close().await;

    let mut dice = StdRng::seed_from_u64(1);
    // Every byte of the header, and some of the bytes that are not zero (most are, in a new file).
    let used: Vec<usize> = (320..whole.len()).filter(|&at| whole[at] != 0).collect();
    let some: Vec<_> = (0..200).map(|_| used[dice.random_range(0..used.len())]).collect();
    let mut refusals = 0;
    for at in (0..320).step_by(3).chain(some) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << dice.random_range(0..8);
        fs::write(&path, &bytes).unwrap();
        match open(&path) {
            Ok(store) => {
                assert_eq!(everything(&store), objects, "byte {at}");
                assert_eq!(store.revision(), 22, "byte {at}");
                store.close().await;
            }
            Err(OpenError::Damaged { .. } | OpenError::Newer { .. }) => {
                refusals += 1;
                assert!(fs::read(&path).unwrap() == bytes, "byte {at}: the file was changed");
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refusals > 100, "{refusals}");
}

#[test]
fn what_cannot_be_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    fs::write(folder.path().join("file"), "").unwrap();
    let error = open(&folder.path().join("file/store.redb")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let error = open(&link).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

const CHILD_PATH: &str = "PORTOLAN_TEST_STORE_CHILD";

/// Starts this test binary again, as a process that writes to a store and says so.
fn writing_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::files::child_that_writes", "--nocapture"])
        .env(CHILD_PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test by itself: what [`writing_child`] runs.
#[tokio::test]
async fn child_that_writes() {
    let Some(path) = std::env::var_os(CHILD_PATH).map(PathBuf::from) else { return };
    let store = open(&path).unwrap();
    let mut output = std::io::stdout();
    for number in 0.. {
        let writes = (0..4).map(|lane| {
            let pod = key("pods", &lane.to_string(), &number.to_string());
            let store = store.clone();
            async move { put(&store, &pod, Expect::Absent, &"y".repeat(1000)).await.unwrap() }
        });
        for record in join_all(writes).await {
            let Key { namespace, name, .. } = &record.key;
            writeln!(output, "wrote {namespace} {name} {}", record.revision).unwrap();
        }
        output.flush().unwrap();
    }
}

/// Kills a process in the middle of its writes, some times over on one file:
/// the lock goes with it, and everything it was told is stored is there.
#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = StdRng::seed_from_u64(7);
    for round in 0..5 {
        let path = folder.path().join(format!("{round}.redb"));
        let mut child = writing_child(&path);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        let mut record = |line: String| {
            if let Some(rest) = line.strip_prefix("wrote ") {
                let words: Vec<_> = rest.split(' ').map(str::to_owned).collect();
                // The kill may cut a line short.
                if let [namespace, name, revision] = &words[..] {
                    acknowledged.push((key("pods", namespace, name), revision.parse::<u64>().ok()));
                }
            }
        };
        for _ in 0..dice.random_range(20..200) {
            record(output.next().unwrap().unwrap());
        }
        match open(&path) {
            Err(OpenError::Locked { holder, .. }) => assert_eq!(holder, Some(child.id())),
            other => panic!("{other:?}"),
        }
        child.kill().unwrap();
        output.map_while(Result::ok).for_each(&mut record);
        child.wait().unwrap();

        let store = open(&path).unwrap();
        let complete = acknowledged.len() - 1;
        assert!(complete > 10);
        for (key, revision) in &acknowledged[..complete] {
            let found = store.get(key).unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(Some(found.revision), *revision);
            assert_eq!(found.bytes, body(key, &"y".repeat(1000), found.revision));
        }
        store.close().await;
    }
}

/// Pages of replaced objects are used again.
#[tokio::test]
async fn a_file_does_not_grow_with_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let options = Options { fsync: false, ..Options::default() };
    let store = Store::open(Backend::File(path.clone()), options).unwrap();
    let pod = key("pods", "default", "a");
    let text = "x".repeat(3_000);
    let mut revision = put(&store, &pod, Expect::Absent, &text).await.unwrap().revision;
    for _ in 0..10_000 {
        revision = put(&store, &pod, Expect::Revision(revision), &text).await.unwrap().revision;
    }
    let bytes = fs::metadata(&path).unwrap().len();
    assert!(bytes < 4 << 20, "{bytes} bytes for one object");
    store.close().await;
}
