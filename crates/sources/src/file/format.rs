//! The text of a static list.
//!
//! ```yaml
//! services:
//!   - name: student
//!     namespace: school          # default: "default"
//!     ports:                     # default: the endpoints' own
//!       - {name: http, port: 80, protocol: TCP, appProtocol: http, targetPort: 8081}
//!     labels: {tier: back}
//!     endpoints:
//!       - 192.168.1.1:8081
//!       - {address: "192.168.1.2:8081", zone: a, weight: 50, metadata: {version: v2}}
//!       - {address: 192.168.1.3, ports: {http: 8082}}
//! ```
//!
//! The shorter form of a configuration file is taken too, as a service of
//! namespace `default`: `student: {url: ["192.168.1.1:8081"]}`.
//!
//! Unknown keys are errors: a misspelt `wieght` must not mean 100.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

/// A list.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) services: Vec<Service>,
}

/// A service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) name: String,
    #[serde(default = "default_namespace")]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
}

/// The namespace of services that name none.
fn default_namespace() -> String {
    "default".to_owned()
}

/// A port in front.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(default)]
    pub(super) name: String,
    pub(super) port: i64,
    #[serde(default)]
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) app_protocol: Option<String>,
    #[serde(default)]
    pub(super) target_port: Option<i64>,
}

/// An endpoint: `address:port` alone, or with more to say.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) ports: BTreeMap<String, i64>,
    pub(super) zone: Option<String>,
    pub(super) node: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) metadata: BTreeMap<String, Scalar>,
}

/// A text; numbers and truth values are taken for how they are written.
#[derive(Debug)]
pub(super) struct Scalar(pub(super) String);

impl Document {
    /// Reads a text. `Err` names line and column.
    pub(super) fn parse(text: &str, json: bool) -> Result<Self, String> {
        if json {
            return serde_json::from_str(text).map_err(|error| error.to_string());
        }
        // An empty file is an empty list.
        let document: Option<Self> =
            serde_norway::from_str(text).map_err(|error| error.to_string())?;
        Ok(document.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Short(Vec<Endpoint>);
        impl<'de> Deserialize<'de> for Short {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Url {
                    url: Vec<Endpoint>,
                }
                Url::deserialize(from).map(|short| Self(short.url))
            }
        }

        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`services:` with a list, or services by name with their `url:`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut document = Document::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "services" {
                        document.services.extend(map.next_value::<Vec<Service>>()?);
                        continue;
                    }
                    document.services.push(Service {
                        name: key,
                        namespace: default_namespace(),
                        ports: Vec::new(),
                        labels: BTreeMap::new(),
                        endpoints: map.next_value::<Short>()?.0,
                    });
                }
                Ok(document)
            }
        }
        from.deserialize_map(Top)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            address: String,
            #[serde(default)]
            ports: BTreeMap<String, i64>,
            #[serde(default)]
            zone: Option<String>,
            #[serde(default)]
            node: Option<String>,
            #[serde(default)]
            hostname: Option<String>,
            #[serde(default)]
            weight: Option<u32>,
            #[serde(default)]
            metadata: BTreeMap<String, Scalar>,
        }

        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("address:port, or a mapping with `address`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Endpoint, E> {
                Ok(Endpoint { address: text.to_owned(), ..Endpoint::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                let long = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Endpoint {
                    address: long.address,
                    ports: long.ports,
                    zone: long.zone,
                    node: long.node,
                    hostname: long.hostname,
                    weight: long.weight,
                    metadata: long.metadata,
                })
            }
        }
        from.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a truth value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        from.deserialize_any(Any)
    }
}
