//! The file source: reload on change, last good list kept.

use std::sync::Arc;

use portolan_model::{Code, Fact, FactKey, Origin, SourceId};
use portolan_runtime::{Clock, Shutdown, SystemClock, Tasks};
use portolan_sources::file::{self, Config};

use crate::mirror::Mirror;

#[tokio::test]
async fn follows_a_file_and_keeps_its_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.yaml");
    let write = |text: &str| {
        // As editors and ConfigMap volumes do: a new file takes the place.
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &path).unwrap();
    };
    write("services: [{name: a, endpoints: ['10.0.0.1:80', '10.0.0.2:70000']}]");
    let config = Config { origin: Origin::configured("school").unwrap(), path: path.clone() };
    assert_eq!(file::parts(&config).0, SourceId::new("school"));
    assert_eq!(file::check(&config).await, Ok(()));
    let (sink, mut mirror) = Mirror::new();
    let tasks = Tasks::new(Shutdown::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    file::start(config.clone(), sink, clock, &tasks);
    let part = ("school".to_owned(), "services".to_owned());
    mirror.until("read", |m| m.complete.contains_key(&part)).await;
    assert_eq!(
        mirror.keys(),
        [
            "school service school:default/a",
            "school endpoints default/a",
            "school rejected file default/a",
        ]
    );

    write("services: [{name: a, endpoint: []}]");
    mirror.until("refused", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.has("school service school:default/a"), "{:?}", mirror.keys());
    let key = FactKey::Rejection(
        portolan_model::name("file"),
        portolan_model::ObjectName::new("", &path.display().to_string()),
    );
    let Some(Fact::Rejection(rejection)) = mirror.fact(&key) else { panic!() };
    assert_eq!(rejection.reasons[0].code, Code::FILE_UNREADABLE);
    assert!(rejection.reasons[0].detail.contains("line 1 column"), "{rejection:?}");
    assert!(file::check(&config).await.unwrap_err().to_string().contains("list.yaml"));

    write("services: [{name: b, endpoints: ['10.0.0.1:80']}]");
    mirror.until("mended", |m| m.has("school service school:default/b")).await;
    assert!(mirror.lost.is_empty());
    assert_eq!(mirror.keys(), ["school service school:default/b", "school endpoints default/b"]);

    std::fs::remove_file(&path).unwrap();
    mirror.until("missing", |m| m.lost.contains_key(&part)).await;
    assert!(mirror.has("school service school:default/b"));
    tasks.shutdown().cancel();
    tasks.finish(std::time::Duration::from_secs(30)).await;
}
