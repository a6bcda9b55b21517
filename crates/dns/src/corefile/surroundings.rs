//! What a configuration file may look at beside itself: other files and the
//! environment. Tests bring their own.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The longest file that is read. Corefiles have some hundred bytes; lists of hosts
/// are the long ones.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Files and environment.
pub trait Surroundings {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The entries of a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// A variable of the environment; empty when it is not set.
    fn variable(&self, name: &str) -> String;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Surroundings for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let text = format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(text)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn variable(&self, name: &str) -> String {
        std::env::var(name).unwrap_or_default()
    }
}

/// The files that a pattern with `*` and `?` means, in order. Where it has neither,
/// it is the file itself, if it is there.
pub(crate) fn glob(surroundings: &dyn Surroundings, pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        found = found
            .iter()
            .flat_map(|folder| surroundings.list(folder).unwrap_or_default())
            .filter(|path| {
                path.file_name().is_some_and(|name| matches(&text, &name.to_string_lossy()))
            })
            .collect();
        found.sort();
    }
    found
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| matches(rest, &text[at..]))
        }
        Some(first) => {
            let mut text = text.chars();
            text.next().is_some_and(|c| first == '?' || first == c)
                && matches(pattern.as_str(), text.as_str())
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files and variables of a test.
    #[derive(Default)]
    pub(crate) struct Fake {
        files: BTreeMap<PathBuf, String>,
        variables: BTreeMap<String, String>,
    }

    impl Fake {
        pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
            self.files.insert(path.into(), text.to_owned());
            self
        }

        pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
            self.variables.insert(name.to_owned(), value.to_owned());
            self
        }
    }

    impl Surroundings for Fake {
        fn read(&self, path: &Path) -> io::Result<String> {
            self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            let children = self.files.keys().filter(|path| path.parent() == Some(folder));
            Ok(children.cloned().collect())
        }

        fn variable(&self, name: &str) -> String {
            self.variables.get(name).cloned().unwrap_or_default()
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*.server", "a.server", true),
            ("*.server", ".server", true),
            ("*.server", "a.override", false),
            ("a?c*", "abcdef", true),
            ("a?c*", "ac", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let fake = Fake::default().file("/c/b.server", "").file("/c/a.server", "").file("/x", "");
        let found = glob(&fake, Path::new("/c/*.server"));
        assert_eq!(found, [PathBuf::from("/c/a.server"), "/c/b.server".into()]);
    }
}
