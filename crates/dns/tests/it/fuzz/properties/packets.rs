//! Packets from clients.

use portolan_testkit::fuzz::Choices;

use super::{
    faces, grow,
    judge::{self, Manners},
};

/// Packets for one face: they are met with silence, or with a reply that others read, that
/// fits, and that is the same whichever way it comes about.
pub(crate) fn packets(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let face = &faces::ALL[choices.below(faces::ALL.len())];
    for _ in 0..4 {
        let packet = grow::packet(choices);
        judge::packet(face, &packet, usize::from(choices.byte()), Manners::default());
        if choices.is_empty() {
            break;
        }
    }
}
