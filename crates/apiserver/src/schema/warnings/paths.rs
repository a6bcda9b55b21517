//! Files of one volume that lie over each other.

use serde_json::Value;

use crate::schema::value::{at, list, text};

/// A file and, where several sources meet, where it comes from.
#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }
}

fn files(items: &[Value], source: &str) -> Vec<File> {
    let file = |item| File { path: text(item, &["path"]).to_owned(), source: source.to_owned() };
    items.iter().map(file).collect()
}

/// All volumes of a Pod.
pub(super) fn overlaps(found: &mut Vec<String>, volumes: &[Value]) {
    for volume in volumes {
        let name = text(volume, &["name"]);
        for (key, field, kind) in
            [("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret")]
        {
            if let Some(source) = at(volume, &[key]) {
                let what = format!("{kind} {:?}", text(source, &[field]));
                collisions(found, name, &what, files(list(source, &["items"]), ""));
            }
        }
        if let Some(source) = at(volume, &["downwardAPI"]) {
            collisions(found, name, "DownwardAPI", files(list(source, &["items"]), ""));
        }
        if let Some(source) = at(volume, &["projected"]) {
            projected(found, name, list(source, &["sources"]));
        }
    }
}

fn projected(found: &mut Vec<String>, name: &str, sources: &[Value]) {
    let mut seen = Vec::new();
    for source in sources {
        let named = |kind: &str, part: &Value| format!("{kind} {:?}", text(part, &["name"]));
        let files = if let Some(part) = at(source, &["configMap"]) {
            files(list(part, &["items"]), &named("ConfigMap", part))
        } else if let Some(part) = at(source, &["secret"]) {
            files(list(part, &["items"]), &named("Secret", part))
        } else if let Some(part) = at(source, &["downwardAPI"]) {
            files(list(part, &["items"]), "DownwardAPI")
        } else if let Some(part) = at(source, &["serviceAccountToken"]) {
            files(std::slice::from_ref(part), "ServiceAccountToken")
        } else {
            found.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        };
        more_collisions(found, name, "Projected", &mut seen, files);
    }
}

fn collisions(found: &mut Vec<String>, volume: &str, what: &str, files: Vec<File>) {
    more_collisions(found, volume, what, &mut Vec::new(), files);
}

fn more_collisions(
    found: &mut Vec<String>,
    volume: &str,
    what: &str,
    seen: &mut Vec<File>,
    files: Vec<File>,
) {
    for mut file in files {
        file.path.truncate(file.path.trim_end_matches('/').len());
        let (this, shown) = (format!("{}/", file.path), file.shown());
        for other in seen.iter().filter(|o| !o.path.is_empty() && !file.path.is_empty()) {
            let that = format!("{}/", other.path);
            if *other == file || that.starts_with(&this) || this.starts_with(&that) {
                found.push(format!(
                    "volume {volume:?} ({what}): overlapping paths: {shown} with {}",
                    other.shown()
                ));
            }
        }
        seen.push(file);
    }
}
