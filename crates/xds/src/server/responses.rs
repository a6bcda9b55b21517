//! Responses as gRPC frames, with resources that were encoded long before.
//!
//! ```text
//!   0 len | version type nonce ... | resource | resource | ...
//!   made for this response           shared with all streams
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use portolan_model::Name;
use xxhash_rust::xxh64::Xxh64;

use crate::{
    encoding::text_field,
    store::version_text,
    stream::{Response, Variant},
};

/// Resources below this are copied into one piece with what is before them; a larger
/// one goes out as it is. What is sent is cut into frames of 16 KiB anyway.
const SHARED_FROM: usize = 8 * 1024;

/// A frame's head: whether it is compressed, and how long it is.
const HEAD: usize = 5;

/// The pieces of a response, in order.
pub(super) fn pieces(response: &Response, variant: Variant) -> Vec<Bytes> {
    let copied = response.resources.iter().map(|own| own.size()).filter(|own| *own < SHARED_FROM);
    let mut piece = BytesMut::with_capacity(256 + copied.sum::<usize>());
    piece.put_bytes(0, HEAD);
    // Field numbers of `DiscoveryResponse` and `DeltaDiscoveryResponse`.
    let nonce = response.nonce.to_string();
    text_field(1, &version_text(version(response)), &mut piece);
    text_field(4, response.kind.type_url(), &mut piece);
    text_field(5, &nonce, &mut piece);
    if variant == Variant::Delta {
        for name in &response.removed {
            text_field(6, name, &mut piece);
        }
    }
    let mut pieces = Vec::new();
    for resource in &response.resources {
        let field = match variant {
            Variant::Delta => resource.wrapped(),
            Variant::StateOfTheWorld => resource.bare(),
        };
        if field.len() < SHARED_FROM {
            piece.put_slice(&field);
        } else {
            pieces.push(std::mem::take(&mut piece).freeze());
            pieces.push(field);
        }
    }
    if !piece.is_empty() {
        pieces.push(piece.freeze());
    }
    with_length(pieces)
}

/// A delta response that says of a type that is not served: there is nothing by these
/// names.
pub(super) fn nothing_there(type_url: &str, names: &[Name]) -> Bytes {
    let mut piece = BytesMut::with_capacity(256);
    piece.put_bytes(0, HEAD);
    text_field(4, type_url, &mut piece);
    // Its answer answers no response of ours.
    text_field(5, "0", &mut piece);
    for name in names {
        text_field(6, name, &mut piece);
    }
    with_length(vec![piece.freeze()]).concat().into()
}

/// Writes the length of it all into the head.
fn with_length(mut pieces: Vec<Bytes>) -> Vec<Bytes> {
    let length = pieces.iter().map(Bytes::len).sum::<usize>() - HEAD;
    let Some(first) = pieces.first_mut() else { return pieces };
    let mut head = BytesMut::from(std::mem::take(first));
    if let Some(length_field) = head.get_mut(1..HEAD) {
        // A response of 4 GiB would not fit into memory before it is found out here.
        length_field.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
    *first = head.freeze();
    pieces
}

/// A version for the whole: it follows from what it holds, on every replica.
fn version(response: &Response) -> u64 {
    let mut hash = Xxh64::new(0);
    for resource in &response.resources {
        hash.update(resource.name.as_bytes());
        hash.update(&resource.version.to_le_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portolan_envoy_proto::{
        Message,
        config::cluster::v3::Cluster,
        service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse},
    };
    use portolan_model::name;

    use super::*;
    use crate::{
        store::{Change, Kind, Resource, Store},
        view::{Dialect, Place, Shelf, View},
    };

    fn resources(sizes: &[usize]) -> Vec<Arc<Resource>> {
        let mut store = Store::default();
        store.commit(sizes.iter().enumerate().map(|(number, size)| {
            let text = format!("c{number}");
            let cluster = Cluster { alt_stat_name: "x".repeat(*size), ..Cluster::default() };
            Change::set(Shelf::GrpcClusters, name(&text), &cluster)
        }));
        let view = View { dialect: Dialect::Grpc, namespace: None, place: Place::default() };
        store.show(&view).all(Kind::Cluster).cloned().collect()
    }

    /// What a client reads of it.
    fn whole(response: &Response, variant: Variant) -> Bytes {
        let all = pieces(response, variant).concat();
        let (head, message) = all.split_at(HEAD);
        assert_eq!(head[0], 0, "not compressed");
        assert_eq!(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize, message.len());
        Bytes::copy_from_slice(message)
    }

    #[test]
    fn clients_read_what_is_put_together() {
        for sizes in [&[][..], &[0], &[10, 20_000, 30, 9_000, 100_000], &[300_000, 1]] {
            let response = Response {
                kind: Kind::Cluster,
                nonce: 12,
                revision: 3,
                resources: resources(sizes),
                removed: vec![name("gone"), name("gone too")],
            };
            let delta = DeltaDiscoveryResponse::decode(whole(&response, Variant::Delta)).unwrap();
            assert_eq!((&*delta.nonce, &*delta.type_url), ("12", Kind::Cluster.type_url()));
            assert_eq!(delta.removed_resources, ["gone", "gone too"]);
            assert_eq!(delta.resources.len(), sizes.len());
            for (own, sent) in delta.resources.iter().zip(&response.resources) {
                assert_eq!(*own.name, *sent.name);
                assert_eq!(own.version, version_text(sent.version));
                assert_eq!(own.resource, Some(sent.body()));
            }
            let plain = whole(&response, Variant::StateOfTheWorld);
            let plain = DiscoveryResponse::decode(plain).unwrap();
            assert_eq!((&*plain.nonce, plain.version_info.len()), ("12", 16));
            assert_eq!(plain.version_info, delta.system_version_info);
            let bodies: Vec<_> = response.resources.iter().map(|own| own.body()).collect();
            assert_eq!(plain.resources, bodies);
        }
    }
}
