//! What a program says of its services, checked whole.
//!
//! Each field is set and checked by itself, in the order of [`STEPS`], so that what is wrong has a
//! name. The rules are those of the dialects: what passes here reads back the same everywhere.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_sdk::{Registration, Standing};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Services of one owner; the record that they become has a limit in bytes beside.
pub(crate) const SERVICES_MAX: usize = 256;

/// All services of an owner.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Services {
    pub(crate) services: Vec<Service>,
}

/// The same with the owner, as a file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnedServices {
    pub(crate) owner: String,
    pub(crate) services: Vec<Service>,
}

/// One service, as the native record has it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    name: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    version: Option<String>,
    protocol: String,
    port: u16,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default = "usual_weight")]
    weight: u32,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    state: Said,
}

fn usual_weight() -> u32 {
    100
}

/// What a program may say of itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    #[default]
    Up,
    Starting,
    Draining,
    OutOfService,
}

impl Said {
    fn standing(self) -> Standing {
        match self {
            Self::Up => Standing::Up,
            Self::Starting => Standing::Starting,
            Self::Draining => Standing::Draining,
            Self::OutOfService => Standing::OutOfService,
        }
    }
}

type Step = (&'static str, fn(&mut Registration, &Service), &'static str);

/// A field, how it is set, and what to do if it cannot be.
const STEPS: [Step; 9] = [
    ("name", |r, s| r.interface.clone_from(&s.name), "give 1 to 253 characters without blanks"),
    ("protocol", |r, s| r.protocol.clone_from(&s.protocol), "give a scheme such as http or grpc"),
    ("port", |r, s| r.port = s.port, "give the port that the program listens on, 1 to 65535"),
    ("group", |r, s| r.group.clone_from(&s.group), "leave it out, or give a text"),
    ("version", |r, s| r.version.clone_from(&s.version), "leave it out, or give a text"),
    ("path", |r, s| r.path.clone_from(&s.path), "leave it out, or begin it with /"),
    ("methods", |r, s| r.methods.clone_from(&s.methods), "name each method by itself"),
    ("zone", |r, s| r.zone.clone_from(&s.zone), "leave it out, or give a text"),
    (
        "metadata",
        |r, s| r.params.clone_from(&s.metadata),
        "use other keys; methods, weight and zone have fields of their own",
    ),
];

/// What the services come to, or the first fault.
pub(crate) fn registrations(
    services: &[Service],
    pod: &[IpAddr],
) -> Result<Vec<Registration>, Problem> {
    if services.len() > SERVICES_MAX {
        let detail = format!("{} services; one owner may have {SERVICES_MAX}", services.len());
        return Err(Problem::field("services", detail).fix("register them as several owners"));
    }
    let mut all: Vec<Registration> = Vec::with_capacity(services.len());
    for (at, service) in services.iter().enumerate() {
        let part = format!("services[{at}]");
        let one = registration(service, pod).map_err(|problem| problem.within(&part))?;
        if let Some(twin) = all.iter().position(|other| other.replaces(&one)) {
            let detail = format!("it is the same service at the same place as services[{twin}]");
            return Err(Problem::field(part, detail)
                .fix("give them different ports, groups or versions, or leave one out"));
        }
        all.push(one);
    }
    Ok(all)
}

fn registration(service: &Service, pod: &[IpAddr]) -> Result<Registration, Problem> {
    let address = match (service.address, pod.first()) {
        (Some(address), _) => address,
        (None, Some(own)) => *own,
        (None, None) => {
            return Err(Problem::field("address", "the Pod's address is not known")
                .fix("give it here, or give the agent POD_IP from status.podIP"));
        }
    };
    let mut one = Registration::new("any", "any", (address, 1).into());
    if let Some(reason) = one.foreign_to(pod) {
        let detail = reason.detail.to_string();
        let detail = detail.trim_start_matches("any: ").to_owned();
        return Err(Problem::field("address", detail)
            .fix("leave it out: a Pod registers its own addresses only"));
    }
    for (field, set, fix) in STEPS {
        set(&mut one, service);
        if let Some(reason) = one.problem() {
            return Err(Problem::field(field, reason.detail.to_string()).fix(fix));
        }
    }
    one.weight = service.weight;
    one.standing = service.state.standing();
    Ok(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read;

    fn check(services: &str, pod: &[&str]) -> Result<Vec<Registration>, Problem> {
        let text = format!(r#"{{"services": [{services}]}}"#);
        let Services { services } = read::json(text.as_bytes())?;
        let pod: Vec<IpAddr> = pod.iter().map(|ip| ip.parse().unwrap()).collect();
        registrations(&services, &pod)
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let fine = r#"{"name": "a", "protocol": "http", "port": 80}"#;
        let with = |more: &str| fine.replace("80}", &format!("80, {more}}}"));
        for (services, field) in [
            (fine.replace("\"a\"", "\"a b\""), "services[0].name"),
            (fine.replace("\"a\"", "\"\""), "services[0].name"),
            (fine.replace("http", "h t"), "services[0].protocol"),
            (fine.replace("80", "0"), "services[0].port"),
            (fine.replace("80", "65536"), "services[0].port"),
            (fine.replace("80", "-1"), "services[0].port"),
            (with(r#""group": """#), "services[0].group"),
            (with(r#""version": """#), "services[0].version"),
            (with(r#""path": "api""#), "services[0].path"),
            (with(r#""methods": ["a,b"]"#), "services[0].methods"),
            (with(r#""zone": """#), "services[0].zone"),
            (with(r#""metadata": {"weight": "1"}"#), "services[0].metadata"),
            (with(r#""metadata": {"a": 1}"#), "services[0].metadata.a"),
            (with(r#""address": "10.0.0.8""#), "services[0].address"),
            (with(r#""address": "x""#), "services[0].address"),
            (with(r#""state": "down""#), "services[0].state"),
            (with(r#""weight": -1"#), "services[0].weight"),
            (with(r#""colour": "red""#), "services[0].colour"),
            (format!("{fine},{fine}"), "services[1]"),
            (vec![fine; SERVICES_MAX + 1].join(","), "services"),
        ] {
            let problem = check(&services, &["10.0.0.7"]).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{services}: {problem:?}");
            assert!(!problem.detail.is_empty() && !problem.fix.is_empty(), "{problem:?}");
        }
    }

    #[test]
    fn the_address_is_the_pods() {
        let fine = r#"{"name": "a", "protocol": "http", "port": 80}"#;
        let all = check(fine, &["10.0.0.7", "fd00::7"]).unwrap();
        assert_eq!(all, [Registration::new("a", "http", "10.0.0.7:80".parse().unwrap())]);
        let second = fine.replace("80", r#"80, "address": "fd00::7""#);
        assert_eq!(
            check(&second, &["10.0.0.7", "fd00::7"]).unwrap()[0].address.to_string(),
            "fd00::7"
        );
        assert_eq!(check(&second, &[]).unwrap().len(), 1);
        assert_eq!(check(fine, &[]).unwrap_err().field.as_deref(), Some("services[0].address"));
    }
}
