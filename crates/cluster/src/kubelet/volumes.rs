//! Volumes: files of a Pod that its containers mount.
//!
//! ```text
//!  spec.volumes ─▶ contents (ConfigMaps, Secrets, the Pod's own fields, tokens)
//!                     └─▶ publish: the folder of the volume, changed as a whole
//!  volumeMounts ─▶ mounts: which folder or file goes where ─▶ Enclosure
//! ```
//!
//! A volume that shows objects is written as upstream's AtomicWriter does: the
//! files are in a folder `..N`, `..data` links to it, and each name links
//! through `..data`, so that a reader sees either all of the old or all of the
//! new. They follow their objects while the Pod runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::{
    enclosure::Mount,
    env::{self, Env, Facts, Lookup},
    pod::{Container, Pod},
};
use crate::object::{at, flag, int, list, text};

/// Where programs look for the files of their ServiceAccount (client-go's `rest.InClusterConfig`).
pub(crate) const ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `corev1.ConfigMapVolumeSourceDefaultMode` and its like.
const FILE_MODE_DEFAULT: u32 = 0o644;

/// Mode of an emptyDir: as upstream's.
const EMPTY_DIR_MODE: u32 = 0o777;

/// Life of a projected token unless the Pod says otherwise (`core/v1` default).
const TOKEN_SECONDS_DEFAULT: u64 = 3600;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

type Files = BTreeMap<PathBuf, File>;

/// What volumes are made from.
pub(crate) struct Origin<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) facts: &'a Facts,
    pub(crate) lookup: &'a dyn Lookup,
    /// A token of the Pod for an audience (empty: the API) and so many seconds.
    pub(crate) token: &'a dyn Fn(&str, u64) -> String,
    /// Whether the Pod's ServiceAccount wants its files mounted.
    pub(crate) automount: bool,
    /// What clients of the API trust.
    pub(crate) ca_pem: &'a str,
    /// The folder of the Pod's volumes.
    pub(crate) folder: &'a Path,
}

impl Origin<'_> {
    /// The mounts of a container; their sources are ready then.
    pub(crate) fn mounts(&self, container: &Container, env: &Env) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for entry in list(&container.raw, "/volumeMounts") {
            mounts.push(self.mount(entry, env)?);
        }
        if self.wants_account(&mounts) {
            let source = self.folder.join("serviceaccount");
            publish(&source, &self.account()).map_err(|e| told(&source, &e))?;
            mounts.push(Mount { source, target: ACCOUNT_FOLDER.into(), read_only: true });
        }
        // Outer ones first, or they would hide inner ones.
        mounts.sort_by_key(|mount| mount.target.components().count());
        Ok(mounts)
    }

    /// Brings the volumes that show objects up to date. What cannot be made now
    /// stays as it was.
    pub(crate) fn refresh(&self) {
        let account = self.folder.join("serviceaccount");
        if account.is_dir()
            && let Err(error) = publish(&account, &self.account())
        {
            tracing::warn!(folder = %account.display(), %error, "a token is out of date");
        }
        for volume in list(&self.pod.raw, "/spec/volumes") {
            let folder = self.folder_of(text(volume, "/name"));
            if folder.is_dir()
                && let Ok(Some(files)) = self.contents(volume)
                && let Err(error) = publish(&folder, &files)
            {
                tracing::warn!(folder = %folder.display(), %error, "a volume is out of date");
            }
        }
    }

    fn wants_account(&self, mounts: &[Mount]) -> bool {
        let automount = at(&self.pod.raw, "/spec/automountServiceAccountToken");
        automount.and_then(Value::as_bool).unwrap_or(self.automount)
            && !mounts.iter().any(|mount| mount.target == Path::new(ACCOUNT_FOLDER))
    }

    /// What the projected volume `kube-api-access-...` holds that admission adds upstream.
    fn account(&self) -> Files {
        let file = |content: &str| File { content: content.into(), mode: FILE_MODE_DEFAULT };
        Files::from([
            ("token".into(), file(&(self.token)("", TOKEN_SECONDS_DEFAULT))),
            ("ca.crt".into(), file(self.ca_pem)),
            ("namespace".into(), file(&self.pod.namespace)),
        ])
    }

    fn folder_of(&self, volume: &str) -> PathBuf {
        self.folder.join("named").join(super::logs::safe(volume))
    }

    fn mount(&self, entry: &Value, env: &Env) -> Result<Mount, String> {
        let (name, target) = (text(entry, "/name"), text(entry, "/mountPath"));
        let volumes = list(&self.pod.raw, "/spec/volumes");
        let volume = volumes.iter().find(|volume| text(volume, "/name") == name);
        let volume = volume.ok_or_else(|| format!("no volume {name:?}"))?;
        let mut read_only = flag(entry, "/readOnly");
        let mut source = if at(volume, "/hostPath").is_some() {
            host_path(volume)?
        } else {
            let folder = self.folder_of(name);
            if at(volume, "/emptyDir").is_some() {
                make_folder(&folder, EMPTY_DIR_MODE).map_err(|e| told(&folder, &e))?;
            } else if let Some(files) = self.contents(volume)? {
                publish(&folder, &files).map_err(|e| told(&folder, &e))?;
                read_only = true;
            } else {
                return Err(format!(
                    "volume {name:?}: only emptyDir, configMap, secret, projected, downwardAPI \
                     and hostPath are known here"
                ));
            }
            folder
        };
        let sub = match text(entry, "/subPathExpr") {
            "" => text(entry, "/subPath").to_owned(),
            expression => env::expand(expression, env),
        };
        if !sub.is_empty() {
            let sub = inside(&sub).ok_or_else(|| format!("subPath {sub:?} leaves the volume"))?;
            source.push(sub);
            if !source.exists() {
                make_folder(&source, EMPTY_DIR_MODE).map_err(|e| told(&source, &e))?;
            }
        }
        if !target.starts_with('/') {
            return Err(format!("mountPath {target:?} is not absolute"));
        }
        Ok(Mount { source, target: target.into(), read_only })
    }

    /// The files of a volume that shows objects; `None` when it is of another kind.
    fn contents(&self, volume: &Value) -> Result<Option<Files>, String> {
        let mut files = Files::new();
        for kind in ["configMap", "secret", "downwardAPI"] {
            if let Some(source) = at(volume, &format!("/{kind}")) {
                let mode = mode(source, "/defaultMode").unwrap_or(FILE_MODE_DEFAULT);
                self.add(&mut files, kind, source, mode)?;
                return Ok(Some(files));
            }
        }
        let Some(projected) = at(volume, "/projected") else { return Ok(None) };
        let mode = mode(projected, "/defaultMode").unwrap_or(FILE_MODE_DEFAULT);
        for source in list(projected, "/sources") {
            for kind in ["configMap", "secret", "downwardAPI", "serviceAccountToken"] {
                if let Some(source) = at(source, &format!("/{kind}")) {
                    self.add(&mut files, kind, source, mode)?;
                }
            }
        }
        Ok(Some(files))
    }

    fn add(&self, files: &mut Files, kind: &str, source: &Value, mode: u32) -> Result<(), String> {
        match kind {
            "downwardAPI" => self.add_fields(files, source, mode),
            "serviceAccountToken" => {
                let asked = int(source, "/expirationSeconds").and_then(|s| u64::try_from(s).ok());
                let seconds = asked.unwrap_or(TOKEN_SECONDS_DEFAULT);
                let content = (self.token)(text(source, "/audience"), seconds).into_bytes();
                put(files, text(source, "/path"), File { content, mode })
            }
            _ => self.add_object(files, kind, source, mode),
        }
    }

    fn add_object(
        &self,
        files: &mut Files,
        kind: &str,
        source: &Value,
        mode_default: u32,
    ) -> Result<(), String> {
        let namespace = &self.pod.namespace;
        let named = [text(source, "/secretName"), text(source, "/name")];
        let name = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let (object, kind) = match kind {
            "secret" => (self.lookup.secret(namespace, name), "secret"),
            _ => (self.lookup.config_map(namespace, name), "configmap"),
        };
        let optional = flag(source, "/optional");
        let Some(object) = object else {
            return if optional { Ok(()) } else { Err(format!("{kind} {name:?} not found")) };
        };
        let value = |key: &str| {
            let field = |field: &str| object.get(field)?.get(key)?.as_str();
            if kind == "configmap"
                && let Some(plain) = field("data")
            {
                return Some(plain.as_bytes().to_vec());
            }
            let encoded = if kind == "secret" { field("data") } else { field("binaryData") };
            BASE64_STANDARD.decode(encoded?).ok()
        };
        let items = list(source, "/items");
        if items.is_empty() {
            let maps = ["data", "binaryData"].iter().filter_map(|f| object.get(f)?.as_object());
            for key in maps.flat_map(|map| map.keys()) {
                let Some(content) = value(key) else { continue };
                put(files, key, File { content, mode: mode_default })?;
            }
        }
        for item in items {
            let key = text(item, "/key");
            let mode = mode(item, "/mode").unwrap_or(mode_default);
            match value(key) {
                Some(content) => put(files, text(item, "/path"), File { content, mode })?,
                None if optional => {}
                None => return Err(format!("{kind} {name:?} has no key {key:?}")),
            }
        }
        Ok(())
    }

    fn add_fields(&self, files: &mut Files, source: &Value, default: u32) -> Result<(), String> {
        for item in list(source, "/items") {
            let path = text(item, "/path");
            let field = text(item, "/fieldRef/fieldPath");
            let found = if field.is_empty() {
                let container = text(item, "/resourceFieldRef/containerName");
                let container = self.pod.main.iter().find(|c| c.name == container);
                let resource = text(item, "/resourceFieldRef/resource");
                container.and_then(|container| env::resource_field(resource, container))
            } else {
                env::field(field, self.pod, self.facts)
            };
            let found = found.ok_or_else(|| format!("downwardAPI {path:?}: no such field"))?;
            let mode = mode(item, "/mode").unwrap_or(default);
            put(files, path, File { content: found.into_bytes(), mode })?;
        }
        Ok(())
    }
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn mode(value: &Value, path: &str) -> Option<u32> {
    u32::try_from(int(value, path)?).ok().filter(|mode| *mode <= 0o777)
}

/// The path if it stays below where it begins.
fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let normal = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(normal).then_some(path)
}

fn put(files: &mut Files, path: &str, file: File) -> Result<(), String> {
    let fine = inside(path).filter(|_| !path.is_empty() && !path.starts_with(".."));
    let path = fine.ok_or_else(|| format!("{path:?} is no path for a file of a volume"))?;
    files.insert(path.to_owned(), file);
    Ok(())
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if !path.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        // The creation mask would take some of it away.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// hostPath, with the checks and makings of its `type`.
fn host_path(volume: &Value) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(volume, "/hostPath/path"));
    let kind = text(volume, "/hostPath/type");
    let made = match kind {
        "DirectoryOrCreate" => make_folder(&path, 0o755),
        "FileOrCreate" if !path.exists() => fs::File::create(&path).map(drop),
        _ => Ok(()),
    };
    made.map_err(|error| told(&path, &error))?;
    let fine = match kind {
        "Directory" => path.is_dir(),
        "File" => path.is_file(),
        _ => path.exists(),
    };
    if fine { Ok(path) } else { Err(format!("hostPath {}: no such {kind}", path.display())) }
}

/// Makes a folder show exactly these files, all at once.
fn publish(folder: &Path, files: &Files) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let data = folder.join("..data");
    let before = fs::read_link(&data).ok();
    if before.as_ref().is_some_and(|before| shows(&folder.join(before), files)) {
        return Ok(());
    }
    let version = format!("..{:016x}", rand::random::<u64>());
    let fresh = folder.join(&version);
    fs::create_dir(&fresh)?;
    for (path, file) in files {
        let place = fresh.join(path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&place, &file.content)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(file.mode))?;
    }
    let draft = folder.join("..draft");
    fs::remove_file(&draft).ok();
    symlink(&version, &draft)?;
    fs::rename(&draft, &data)?;
    let first = |path: &PathBuf| path.components().next().map(|c| PathBuf::from(c.as_os_str()));
    let names: BTreeSet<PathBuf> = files.keys().filter_map(first).collect();
    for name in &names {
        let link = folder.join(name);
        if fs::read_link(&link).is_err() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = PathBuf::from(entry.file_name());
        if !names.contains(&name) && !name.to_string_lossy().starts_with("..") {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(before) = before {
        fs::remove_dir_all(folder.join(before)).ok();
    }
    Ok(())
}

/// Whether a folder holds these files. (A token differs each time it is made.)
fn shows(folder: &Path, files: &Files) -> bool {
    let same = |(path, file): (&PathBuf, &File)| {
        fs::read(folder.join(path)).is_ok_and(|content| content == file.content)
    };
    files.iter().all(same) && count(folder) == files.len()
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    struct Objects;

    impl Lookup for Objects {
        fn config_map(&self, _: &str, name: &str) -> Option<Arc<Value>> {
            (name == "settings").then(|| {
                Arc::new(json!({"data": {"colour": "red"}, "binaryData": {"dot": "AAE="}}))
            })
        }

        fn secret(&self, _: &str, name: &str) -> Option<Arc<Value>> {
            (name == "keys").then(|| Arc::new(json!({"data": {"word": "c2VzYW1l"}})))
        }
    }

    fn with<T>(volumes: Value, check: impl FnOnce(&Origin<'_>, &Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let pod = Pod::of(Arc::new(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"volumes": volumes, "containers": [
                {"name": "main", "resources": {"limits": {"cpu": "2"}}}]},
        })));
        let facts = Facts {
            addresses: vec!["127.10.0.7".parse().unwrap()],
            host_ip: "127.0.0.1".parse().unwrap(),
        };
        let origin = Origin {
            pod: &pod,
            facts: &facts,
            lookup: &Objects,
            token: &|audience, seconds| format!("token for {audience:?}, {seconds} s"),
            automount: true,
            ca_pem: "PEM",
            folder: folder.path(),
        };
        check(&origin, folder.path())
    }

    #[test]
    fn what_volumes_hold() {
        let check = |volume: Value, expected: Result<&[(&str, &str)], &str>| {
            let found = with(json!([]), |origin, _| origin.contents(&volume));
            let found = found.map(|files| {
                let files = files.unwrap_or_default().into_iter();
                let text = |file: File| String::from_utf8_lossy(&file.content).into_owned();
                files.map(|(p, f)| (p.display().to_string(), text(f))).collect::<Vec<_>>()
            });
            let expected = expected
                .map(|all| all.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect())
                .map_err(str::to_owned);
            assert_eq!(found, expected, "{volume}");
        };
        check(
            json!({"configMap": {"name": "settings"}}),
            Ok(&[("colour", "red"), ("dot", "\u{0}\u{1}")]),
        );
        check(
            json!({"secret": {"secretName": "keys", "items": [{"key": "word", "path": "a/b"}]}}),
            Ok(&[("a/b", "sesame")]),
        );
        check(json!({"configMap": {"name": "no"}}), Err("configmap \"no\" not found"));
        check(json!({"secret": {"secretName": "no", "optional": true}}), Ok(&[]));
        check(
            json!({"configMap": {"name": "settings", "items": [{"key": "no", "path": "x"}]}}),
            Err("configmap \"settings\" has no key \"no\""),
        );
        check(
            json!({"configMap": {"name": "settings", "items": [{"key": "dot", "path": "../x"}]}}),
            Err("\"../x\" is no path for a file of a volume"),
        );
        check(
            json!({"projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}},
                {"secret": {"name": "keys"}},
                {"downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "cpu", "resourceFieldRef":
                        {"containerName": "main", "resource": "limits.cpu"}}]}}]}}),
            Ok(&[
                ("cpu", "2"),
                ("labels", "app=\"web\""),
                ("t", "token for \"vault\", 600 s"),
                ("word", "sesame"),
            ]),
        );
    }

    #[test]
    fn where_they_are_mounted() {
        let volumes = json!([
            {"name": "scratch", "emptyDir": {}},
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "machine", "hostPath": {"path": "/no/such", "type": "Directory"}},
            {"name": "disk", "persistentVolumeClaim": {"claimName": "x"}},
        ]);
        let check = |mounts: Value, expected: Result<&[(&str, bool)], &str>| {
            let found = with(volumes.clone(), |origin, _| {
                let container = Container::of(&json!({"name": "main", "volumeMounts": mounts}));
                let env = Env::from([("SHARD".into(), "7".into())]);
                origin.mounts(&container, &env).map(|mounts| {
                    assert!(mounts.iter().all(|mount| mount.source.exists()));
                    mounts
                        .into_iter()
                        .map(|m| (m.target.display().to_string(), m.read_only))
                        .collect::<Vec<_>>()
                })
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    let expected: Vec<_> =
                        expected.iter().map(|(p, ro)| ((*p).to_owned(), *ro)).collect();
                    assert_eq!(found, expected, "{mounts}");
                }
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
                (found, _) => panic!("{mounts}: {found:?}"),
            }
        };
        let account = (ACCOUNT_FOLDER, true);
        check(json!([]), Ok(&[account]));
        check(
            json!([
                {"name": "settings", "mountPath": "/data/settings"},
                {"name": "scratch", "mountPath": "/data", "subPathExpr": "shard-$(SHARD)"}]),
            Ok(&[("/data", false), ("/data/settings", true), account]),
        );
        check(
            json!([{"name": "scratch", "mountPath": ACCOUNT_FOLDER}]),
            Ok(&[(ACCOUNT_FOLDER, false)]),
        );
        check(json!([{"name": "no", "mountPath": "/x"}]), Err("no volume \"no\""));
        check(json!([{"name": "machine", "mountPath": "/x"}]), Err("hostPath /no/such: no such"));
        check(json!([{"name": "disk", "mountPath": "/x"}]), Err("volume \"disk\": only"));
        check(json!([{"name": "scratch", "mountPath": "x"}]), Err("mountPath \"x\" is not"));
        check(
            json!([{"name": "scratch", "mountPath": "/x", "subPath": "../y"}]),
            Err("subPath \"../y\" leaves"),
        );
    }

    #[test]
    fn a_volume_changes_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let file = |text: &str| File { content: text.into(), mode: 0o600 };
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        publish(dir, &Files::from([("a".into(), file("1")), ("d/b".into(), file("2"))])).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read_link(dir.join("..data")).unwrap();
        publish(dir, &Files::from([("a".into(), file("1")), ("d/b".into(), file("2"))])).unwrap();
        assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first, "nothing changed");
        publish(dir, &Files::from([("a".into(), file("3"))])).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
        assert!(!dir.join(first).exists());
        assert!(dir.join("d").symlink_metadata().is_err());
    }
}
