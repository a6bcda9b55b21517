//! From a path to what it names. Data only: no handler, no I/O.

use super::query::percent_decode;
use crate::{Kind, go, kinds};

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Route {
    /// A resource, one object of it, or a part of one.
    Resource(Target),
    /// A kind that is only asked, never stored.
    Virtual {
        kind: &'static Kind,
        namespace: String,
    },
    /// `/api`, `/apis` and what lies right below.
    Discovery(Discovery),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3` (empty) or a group version below it.
    OpenApi(String),
    Version,
    /// `/healthz`, `/livez`, `/readyz`, and single checks below them.
    Health,
    Metrics,
    /// The root: a list of paths.
    Index,
    /// Below a group that is served, but nothing that it has.
    Unknown,
    /// Nothing at all: upstream's outer dispatcher says so, in plain text.
    Nowhere,
    /// A name that no object can have.
    BadName(String),
    /// No path: Go's HTTP server refuses it before anybody is asked who is calling.
    Malformed,
}

/// Single checks of health that have URLs: those of upstream that mean something here.
const HEALTH_CHECKS: [&str; 3] = ["ping", "log", "etcd"];
const READY_CHECKS: [&str; 1] = ["shutdown"];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Discovery {
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources { group: String, version: String },
}

/// A stored resource and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// `None`: the path names no namespace (cluster-scoped, or all namespaces).
    pub(crate) namespace: Option<String>,
    /// Empty: the collection.
    pub(crate) name: String,
    /// Empty: the whole object.
    pub(crate) subresource: String,
    /// The old `/watch/` form of a path.
    pub(crate) watch: bool,
}

impl Target {
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// Reads a path as upstream's two dispatchers do: the outer one looks at how the path begins,
/// the inner one at its segments, without slashes at either end. Both know the path decoded. No
/// path is cleaned up into another.
pub(crate) fn parse(path: &str) -> Route {
    let Some(path) = percent_decode(path) else { return Route::Malformed };
    if path == "/" {
        return Route::Index;
    }
    if !is_somewhere(&path) {
        return Route::Nowhere;
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["api"] => Route::Discovery(Discovery::Core),
        ["api", version] => resources("", version),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis"] => Route::Discovery(Discovery::Groups),
        ["apis", group] => Route::Discovery(Discovery::Group((*group).to_owned())),
        ["apis", group, version] => resources(group, version),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        ["version"] => Route::Version,
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["metrics"] => Route::Metrics,
        _ => Route::Unknown,
    }
}

/// Whether upstream has anything at the beginning of a path.
fn is_somewhere(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("api" | "version"), ..) => true,
        (Some("metrics"), None, _) => true,
        (Some("openapi"), Some("v2"), None) => true,
        (Some("openapi"), Some("v3"), _) => true,
        (Some("healthz" | "livez" | "readyz"), None, _) => true,
        (Some(all), Some(check), None) if matches!(all, "healthz" | "livez" | "readyz") => {
            HEALTH_CHECKS.contains(&check) || READY_CHECKS.contains(&check) && all == "readyz"
        }
        (Some("apis"), None | Some(""), None) => true,
        (Some("apis"), Some(group), _) => {
            let mut known = kinds::ALL.iter().chain(kinds::VIRTUAL);
            known.any(|kind| kind.group == group && !group.is_empty())
        }
        _ => false,
    }
}

fn resources(group: &str, version: &str) -> Route {
    Route::Discovery(Discovery::Resources { group: group.to_owned(), version: version.to_owned() })
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // A Namespace itself, and the parts that it has.
        ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => {
            (None, rest)
        }
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, "", ""),
        [plural, name] if !name.is_empty() => (plural, *name, ""),
        [plural, name, subresource] if !name.is_empty() => (plural, *name, *subresource),
        _ => return Route::Unknown,
    };
    if let Some(kind) = kinds::find_virtual(group, version, plural) {
        let placed = kind.namespaced == namespace.is_some();
        return match (placed, name) {
            (true, "") => {
                Route::Virtual { kind, namespace: namespace.unwrap_or_default().to_owned() }
            }
            _ => Route::Unknown,
        };
    }
    let Some(kind) = kinds::find(group, version, plural) else { return Route::Unknown };
    if let Some(why) = bad_name(name) {
        return Route::BadName(format!("Name parameter invalid: {}: {why}", go::quote(name)));
    }
    let namespace = namespace.filter(|n| !n.is_empty());
    if matches!(namespace, Some("." | "..")) {
        return Route::Unknown;
    }
    // Objects of a namespaced kind need a namespace; a cluster-scoped kind has none.
    if !kind.namespaced && namespace.is_some()
        || kind.namespaced && namespace.is_none() && !name.is_empty()
    {
        return Route::Unknown;
    }
    Route::Resource(Target {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        watch,
    })
}

/// The words of upstream's `path.IsValidPathSegmentName`.
fn bad_name(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let target = |kind, namespace: Option<&str>, name: &str, sub: &str| {
            Route::Resource(Target {
                kind,
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
                subresource: sub.to_owned(),
                watch: false,
            })
        };
        for (path, expected) in [
            ("/api/v1/pods", target(&kinds::PODS, None, "", "")),
            ("/api/v1/namespaces/a/pods/", target(&kinds::PODS, Some("a"), "", "")),
            ("/api/v1/namespaces/a/pods/b", target(&kinds::PODS, Some("a"), "b", "")),
            ("/api/v1/namespaces/a/pods/b/log", target(&kinds::PODS, Some("a"), "b", "log")),
            ("/api/v1/namespaces", target(&kinds::NAMESPACES, None, "", "")),
            ("/api/v1/namespaces/a", target(&kinds::NAMESPACES, None, "a", "")),
            ("/api/v1/namespaces/a/finalize", target(&kinds::NAMESPACES, None, "a", "finalize")),
            ("/api/v1/namespaces/a/services", target(&kinds::SERVICES, Some("a"), "", "")),
            ("/api/v1/nodes/n%2Dm", target(&kinds::NODES, None, "n-m", "")),
            (
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                target(&kinds::DEPLOYMENTS, Some("a"), "b", "scale"),
            ),
            ("/api/v1/pods/b", Route::Unknown),
            ("/api/v1/namespaces/a/nodes/b", Route::Unknown),
            (
                "/api/v1/namespaces/a/pods/%2e%2e",
                Route::BadName("Name parameter invalid: \"..\": may not be '..'".into()),
            ),
            ("/api/v1/namespaces/../pods", Route::Unknown),
            ("/api/v1/namespaces/a/pods%2Fb", target(&kinds::PODS, Some("a"), "b", "")),
            ("/api/v1/namespaces/a/pods/%FF", target(&kinds::PODS, Some("a"), "\u{fffd}", "")),
            ("/api/v1/namespaces/a/pods/%zz", Route::Malformed),
            ("/api/v1/namespaces/a/pods/b%4", Route::Malformed),
            ("/api/v1/namespaces/a//", target(&kinds::NAMESPACES, None, "a", "")),
            ("//api/v1/pods", Route::Nowhere),
            ("/apis//v1/pods", Route::Nowhere),
            ("/metrics/x", Route::Nowhere),
            ("/healthz/nothing", Route::Nowhere),
            ("/readyz/shutdown", Route::Health),
            ("/livez/shutdown", Route::Nowhere),
            ("/version/x", Route::Unknown),
            ("/api/v1/namespaces//pods", target(&kinds::PODS, None, "", "")),
            ("/api/v1//namespaces", Route::Unknown),
            ("/apis/nothing.io/v1/things", Route::Nowhere),
            ("/nothing", Route::Nowhere),
            (
                "/api/v1/namespaces/%25",
                Route::BadName("Name parameter invalid: \"%\": may not contain '%'".into()),
            ),
            ("/api//v1/pods", Route::Unknown),
            ("/apis/apps/v1/pods", Route::Unknown),
            ("/api/v1/namespaces/a/pods/b/log/c", Route::Unknown),
            ("/", Route::Index),
            ("/readyz", Route::Health),
            ("/livez/ping", Route::Health),
            ("/version/", Route::Version),
            ("/openapi/v2", Route::OpenApiV2),
            ("/openapi/v3", Route::OpenApi(String::new())),
            ("/openapi/v3/apis/apps/v1", Route::OpenApi("apis/apps/v1".into())),
            ("/api", Route::Discovery(Discovery::Core)),
            ("/apis/apps", Route::Discovery(Discovery::Group("apps".into()))),
            ("/etc/passwd", Route::Nowhere),
        ] {
            assert_eq!(parse(path), expected, "{path}");
        }
        assert!(matches!(parse("/api/v1/watch/pods"), Route::Resource(t) if t.watch));
        assert!(matches!(
            parse("/apis/authentication.k8s.io/v1/tokenreviews"),
            Route::Virtual { kind, .. } if kind.kind == "TokenReview"
        ));
    }

    proptest::proptest! {
        /// No path names something outside of the segments that it has.
        #[test]
        fn any_path_is_read_or_unknown(path in "(/(api|apis|v1|apps|namespaces|pods|watch|a|%2f|%2e%2e|\\.\\.||.{0,4})){0,8}") {
            if let Route::Resource(target) = parse(&path) {
                for part in [target.namespace(), &target.name, &target.subresource] {
                    proptest::prop_assert!(!part.contains('/') && part != ".." && part != ".");
                }
            }
        }
    }
}
