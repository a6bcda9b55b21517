//! Which dialects there are, and the one way to read a Pod in any of them.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use portolan_model::{Code, Reason};

use crate::{Registration, app::App, dubbo, dubbo_java, micro, native, operator};

/// What a dialect looks at.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    /// `metadata.labels`.
    pub labels: &'a BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: &'a BTreeMap<String, String>,
    /// `status.podIPs`, for dialects whose records name no address.
    pub addresses: &'a [IpAddr],
    /// `status.containerStatuses`, for dialects whose records name their container.
    pub containers: &'a [ContainerView<'a>],
}

/// What the kubelet says of a container.
#[derive(Clone, Copy, Debug)]
pub struct ContainerView<'a> {
    /// Its name.
    pub name: &'a str,
    /// `state.running.startedAt`; `None` if it does not run.
    pub started: Option<&'a str>,
}

impl<'a> PodView<'a> {
    pub(crate) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(String::as_str)
    }

    pub(crate) fn label(&self, key: &str) -> Option<&'a str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// What a Pod says in one dialect or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What is usable.
    pub registrations: Vec<Registration>,
    /// What is not, and why; at most [`Reading::REASONS_MAX`].
    pub reasons: Vec<Reason>,
}

impl Reading {
    /// Reasons that are kept of one Pod: one annotation can hold thousands of
    /// broken entries, and nobody reads the hundredth message.
    pub const REASONS_MAX: usize = 16;

    /// A reading that has only a reason.
    pub(crate) fn rejected(code: Code, detail: impl AsRef<str>) -> Self {
        Self { registrations: Vec::new(), reasons: vec![Reason::new(code, detail)] }
    }

    /// Notes why an entry cannot be used.
    pub fn refuse(&mut self, reason: Reason) {
        if self.reasons.len() < Self::REASONS_MAX && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Adds what another dialect found.
    fn join(&mut self, other: Self) {
        self.registrations.extend(other.registrations);
        for reason in other.reasons {
            self.refuse(reason);
        }
    }
}

/// A dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `app.io`, or the same under another prefix.
    App(App),
    /// `dubbo.io` of dubbo-go 1.4 and 1.5.
    Dubbo,
    /// `io.dubbo/metadata` of Dubbo Java.
    DubboJava,
    /// `micro.mu` of go-micro.
    Micro,
    /// `registry.portolan.dev/<owner>`.
    Native,
}

/// No such dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown dialect {0:?}; expected app.io, app.io=PREFIX, dubbo.io, io.dubbo/metadata, \
     micro.mu or registry.portolan.dev"
)]
pub struct UnknownDialect(pub String);

impl Dialect {
    /// All of them, as they are read by default.
    pub fn all() -> Vec<Self> {
        vec![Self::App(App::default()), Self::Dubbo, Self::DubboJava, Self::Micro, Self::Native]
    }

    /// Reads a Pod.
    pub fn read(&self, pod: &PodView<'_>) -> Reading {
        match self {
            Self::App(app) => app.read(pod),
            Self::Dubbo => dubbo::read(pod),
            Self::DubboJava => dubbo_java::read(pod),
            Self::Micro => micro::read(pod),
            Self::Native => native::read(pod),
        }
    }

    /// Reads a Pod in several dialects: it may carry more than one.
    pub fn read_all(dialects: &[Self], pod: &PodView<'_>) -> Reading {
        let mut all = Reading::default();
        // Most Pods of a cluster register nothing.
        if pod.annotations.is_empty() {
            return all;
        }
        for dialect in dialects {
            all.join(dialect.read(pod));
        }
        operator::apply(pod, &mut all);
        all
    }

    /// A label selector that leaves out no Pod of the dialect, where its writers
    /// set a label.
    pub fn selector(&self) -> Option<String> {
        match self {
            Self::App(app) => Some(app.selector()),
            Self::Dubbo => Some(dubbo::LABEL.to_owned()),
            Self::Micro => Some(micro::SELECTOR.to_owned()),
            Self::DubboJava | Self::Native => None,
        }
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        match text {
            "app.io" => Ok(Self::App(App::default())),
            "dubbo.io" => Ok(Self::Dubbo),
            "io.dubbo/metadata" => Ok(Self::DubboJava),
            "micro.mu" => Ok(Self::Micro),
            "registry.portolan.dev" => Ok(Self::Native),
            _ => text
                .strip_prefix("app.io=")
                .and_then(|prefix| App::with_prefix(prefix).ok())
                .map(Self::App)
                .ok_or_else(|| UnknownDialect(text.to_owned())),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) if *app == App::default() => f.write_str("app.io"),
            Self::App(app) => write!(f, "app.io={}", app.prefix()),
            Self::Dubbo => f.write_str("dubbo.io"),
            Self::DubboJava => f.write_str("io.dubbo/metadata"),
            Self::Micro => f.write_str("micro.mu"),
            Self::Native => f.write_str("registry.portolan.dev"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        let mut dialects = Dialect::all();
        dialects.push(Dialect::App(App::with_prefix("corp.example").unwrap()));
        for dialect in dialects {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert!("app.io=Not A Prefix".parse::<Dialect>().is_err());
        assert!("zookeeper".parse::<Dialect>().is_err());
    }
}
